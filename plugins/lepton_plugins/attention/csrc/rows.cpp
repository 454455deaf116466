#include "rows.h"

#include "../../toolchain/csrc/vector.h"
#include "products.h"

namespace lepton {
namespace {

// Memory that is given out piece by piece; without any, pieces are counted alone.
struct Room {
  float* memory;
  int64_t used = 0;

  template <class T = float>
  T* take(int64_t numbers) {
    const int64_t bytes = numbers * static_cast<int64_t>(sizeof(T));
    const int64_t floats = bytes / static_cast<int64_t>(sizeof(float));
    float* taken = memory == nullptr ? nullptr : memory + used;
    used += (floats + 7) / 8 * 8;
    return reinterpret_cast<T*>(taken);
  }
};

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

// What a total is divided by, as a factor. A sink is a score without a value: it takes its share.
float share(const float* sinks, int head, float maximum, float sum) {
  if (!(sum > 0)) return 0.0f;
  if (sinks == nullptr) return 1 / sum;
  const float sink = sinks[head], most = maximum > sink ? maximum : sink;
  const __m256 seen = exponential(Eight::all(maximum - most)).v;
  const __m256 lost = exponential(Eight::all(sink - most)).v;
  const float weight = _mm256_cvtss_f32(seen);
  return weight / (sum * weight + _mm256_cvtss_f32(lost));
}

// Where all that is known of rows lies.
Rows laid_out(Room& room, int count, int head_dim, Kind kind) {
  const int64_t all = static_cast<int64_t>(count) * head_dim;
  const int64_t block = static_cast<int64_t>(head_dim) * kKeys;
  Rows r{};
  if (kind == Kind::few || kind == Kind::many) r.query = room.take(all);
  r.total = room.take(all);
  r.maximum = room.take(count);
  r.sum = room.take(count);
  r.factor = room.take(count);
  r.scores = room.take(static_cast<int64_t>(count) * kKeys);
  if (kind == Kind::many) {
    r.keys = room.take(block);
    r.values = room.take(block);
  }
  if (kind == Kind::rounded || kind == Kind::few_bytes) {
    r.scale = room.take(count);
    r.words = room.take<int16_t>(count * padded_width(head_dim));
  }
  if (kind == Kind::rounded) {
    r.weight_scale = room.take(count);
    r.bytes = room.take<uint8_t>(static_cast<int64_t>(count) * kKeys);
  }
  return r;
}

}  // namespace

int64_t floats_of(int count, int head_dim, Kind kind) {
  Room room{nullptr};
  laid_out(room, count, head_dim, kind);
  return room.used;
}

Rows rows_in(float* memory, int count, int head_dim, int group, int64_t first, Kind kind) {
  Room room{memory};
  Rows r = laid_out(room, count, head_dim, kind);
  r.count = count;
  r.first = first;
  r.group = group;
  r.kind = kind;
  return r;
}

Sight sight(const Attention& a, int64_t batch, int64_t query) {
  const int64_t position = a.offset[batch] + query;
  const int64_t last = a.causal ? smaller(position + 1, a.keys[batch]) : a.keys[batch];
  if (a.window < 0) return {0, last};
  return {larger(0, position + 1 - a.window), smaller(position + a.window, last)};
}

void begin(const Attention& a, int64_t batch, int kv_head, const Rows& r) {
  for (int i = 0; i < r.count; ++i) {
    const float* from =
        a.query.at(batch, kv_head * r.group + i % r.group, r.first + i / r.group);
    if (r.kind == Kind::rounded) {
      r.scale[i] = a.scale * round_words(from, a.head_dim, r.words + i * padded_width(a.head_dim));
    } else if (r.kind == Kind::few_bytes) {
      float* scaled = r.total + i * a.head_dim;  // which is made below
      for (int d = 0; d < a.head_dim; ++d) scaled[d] = from[d] * a.scale;
      r.scale[i] = round_row(scaled, a.head_dim, kLevelsOfFew, r.words + i * a.head_dim);
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
    const int head = kv_head * r.group + i % r.group;
    float* y = a.output.at(batch, head, r.first + i / r.group);
    const __m256 factor = _mm256_set1_ps(share(a.sinks, head, r.maximum[i], r.sum[i]));
    for (int d = 0; d < a.head_dim; d += 8) {
      _mm256_storeu_ps(
          y + d, _mm256_mul_ps(_mm256_loadu_ps(r.total + i * a.head_dim + d), factor));
    }
  }
}

}  // namespace lepton
