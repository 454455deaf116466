#include "rows.h"

#include "../../toolchain/csrc/vector.h"
#include "products.h"

namespace lepton {
namespace {

float* take(float*& memory, int64_t count) {
  float* taken = memory;
  memory += (count + 7) / 8 * 8;
  return taken;
}

// Of a bias there is nothing behind its last key.
void add_bias(const float* bias, int count, float* s) {
  int j = 0;
  for (; j + 8 <= count; j += 8) {
    _mm256_storeu_ps(s + j, _mm256_add_ps(_mm256_loadu_ps(s + j), _mm256_loadu_ps(bias + j)));
  }
  if (j == count) return;
  _mm256_storeu_ps(s + j, _mm256_add_ps(_mm256_loadu_ps(s + j), Ragged(count - j).load(bias + j)));
}

// Have the next block of a bias come while this one is computed: its rows lie apart, and no processor
// foresees them. Where it ends nothing is read.
void call_for(const float* bias) {
  for (int j = 0; j < kKeys; j += 16) {
    _mm_prefetch(reinterpret_cast<const char*>(bias + j), _MM_HINT_T1);
  }
}

// What a mask says is no text.
void hide(const int32_t* shown, int count, float* s) {
  const __m256 none = _mm256_set1_ps(kNone);
  int j = 0;
  for (; j + 8 <= count; j += 8) {
    const __m256i here = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(shown + j));
    const __m256i hidden = _mm256_cmpeq_epi32(here, _mm256_setzero_si256());
    const __m256 scores = _mm256_loadu_ps(s + j);
    _mm256_storeu_ps(s + j, _mm256_blendv_ps(scores, none, _mm256_castsi256_ps(hidden)));
  }
  for (; j < count; ++j) {
    if (shown[j] == 0) s[j] = kNone;
  }
}

bool hides(const int32_t* shown, int count) {
  for (int j = 0; j < count; ++j) {
    if (shown[j] == 0) return true;
  }
  return false;
}

// Scores as weights are made of: bounded, with their bias, and kNone for what is out of sight.
void complete(const Attention& a, const KeysInSight& keys, const Rows& r) {
  const int count = keys.count, padded = (count + 7) / 8 * 8;
  const int32_t* shown = a.mask == nullptr ? nullptr : a.mask + keys.batch * a.mask_length + keys.start;
  if (shown != nullptr && !hides(shown, count)) shown = nullptr;
  for (int i = 0; i < r.count; ++i) {
    float* s = r.scores + i * kKeys;
    const int64_t query = r.first + i / r.group;
    const Sight seen = sight(a, keys.batch, query);
    const int from = static_cast<int>(larger(0, smaller(count, seen.from - keys.start)));
    const int to = static_cast<int>(larger(from, smaller(count, seen.to - keys.start)));
    if (a.softcap > 0) r.form.soften(a.softcap, padded, s);
    if (a.bias.data != nullptr) {
      const int head = keys.kv_head * r.group + i % r.group;
      const float* bias = a.bias.at(keys.batch, head, query) + keys.start;
      call_for(bias + kKeys);
      add_bias(bias, count, s);
    }
    if (shown != nullptr) hide(shown, count, s);
    for (int j = 0; j < from; ++j) s[j] = kNone;
    for (int j = to; j < padded; ++j) s[j] = kNone;
  }
}

// What there is of values is worth less where a larger score comes up.
void rescale(const Rows& r, int head_dim) {
  for (int i = 0; i < r.count; ++i) {
    if (r.factor[i] == 1.0f) continue;
    const Eight factor = Eight::all(r.factor[i]);
    float* t = r.total + i * head_dim;
    for (int d = 0; d < head_dim; d += 8) (Eight::load(t + d) * factor).store(t + d);
  }
}

}  // namespace

int64_t floats_of(int count, int head_dim, Kind kind) {
  const int64_t padded = (count + 7) / 8 * 8;
  if (kind == Kind::rounded) {
    return static_cast<int64_t>(count) * head_dim + 5 * padded + count * kKeys +
           count * padded_width(head_dim) / 2 + count * kKeys / 4 + 64;
  }
  return 2 * static_cast<int64_t>(count) * head_dim + 3 * padded + count * kKeys +
         (kind == Kind::few ? 0 : 2 * static_cast<int64_t>(head_dim) * kKeys) + 64;
}

Rows rows_in(float* memory, int count, int head_dim, int group, int64_t first, Kind kind) {
  Rows r{};
  r.count = count;
  r.first = first;
  r.group = group;
  r.kind = kind;
  const bool rounded = kind == Kind::rounded;
  if (!rounded) r.query = take(memory, static_cast<int64_t>(count) * head_dim);
  r.total = take(memory, static_cast<int64_t>(count) * head_dim);
  r.maximum = take(memory, count);
  r.sum = take(memory, count);
  r.factor = take(memory, count);
  r.scores = take(memory, static_cast<int64_t>(count) * kKeys);
  if (kind == Kind::many) {
    r.keys = take(memory, static_cast<int64_t>(head_dim) * kKeys);
    r.values = take(memory, static_cast<int64_t>(head_dim) * kKeys);
  }
  if (rounded) {
    r.scale = take(memory, count);
    r.weight_scale = take(memory, count);
    r.words = reinterpret_cast<int16_t*>(take(memory, count * padded_width(head_dim) / 2));
    r.bytes = reinterpret_cast<uint8_t*>(take(memory, count * kKeys / 4));
  }
  return r;
}

Sight sight(const Attention& a, int64_t batch, int64_t query) {
  const int64_t position = a.offset[batch] + query;
  const int64_t last = a.causal ? smaller(position + 1, a.keys[batch]) : a.keys[batch];
  if (a.window < 0) return {0, last};
  return {larger(0, position + 1 - a.window), last};
}

void begin(const Attention& a, int64_t batch, int kv_head, const Rows& r) {
  for (int i = 0; i < r.count; ++i) {
    const float* from =
        a.query.at(batch, kv_head * r.group + i % r.group, r.first + i / r.group);
    if (r.kind == Kind::rounded) {
      r.scale[i] = a.scale * round_words(from, a.head_dim, r.words + i * padded_width(a.head_dim));
    } else {
      for (int d = 0; d < a.head_dim; ++d) r.query[i * a.head_dim + d] = from[d] * a.scale;
    }
    for (int d = 0; d < a.head_dim; ++d) r.total[i * a.head_dim + d] = 0.0f;
    r.maximum[i] = kNone;
    r.sum[i] = 0.0f;
  }
}

void look(const Attention& a, int64_t batch, int kv_head, const Rows& r, int64_t from, int64_t to) {
  from = larger(from, sight(a, batch, r.first).from / 8 * 8);
  to = smaller(to, sight(a, batch, r.first + (r.count - 1) / r.group).to);
  for (int64_t start = from, end; start < to; start = end) {
    end = smaller(to, (start / kKeys + 1) * kKeys);
    const KeysInSight keys{batch, kv_head, start, static_cast<int>(end - start)};
    multiply_keys(a, r, keys);
    complete(a, keys, r);
    r.form.weigh({r.count, (keys.count + 7) / 8 * 8, r.scores, r.maximum, r.sum, r.factor});
    rescale(r, a.head_dim);
    add_values(a, r, keys);
  }
}

void finish(const Attention& a, int64_t batch, int kv_head, const Rows& r) {
  for (int i = 0; i < r.count; ++i) {
    float* y = a.output.at(batch, kv_head * r.group + i % r.group, r.first + i / r.group);
    const __m256 factor = _mm256_set1_ps(r.sum[i] > 0 ? 1 / r.sum[i] : 0.0f);
    for (int d = 0; d < a.head_dim; d += 8) {
      _mm256_storeu_ps(
          y + d, _mm256_mul_ps(_mm256_loadu_ps(r.total + i * a.head_dim + d), factor));
    }
  }
}

}  // namespace lepton
