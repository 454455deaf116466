// Keys go by in blocks; a block of queries keeps a running maximum, a running sum and its weighted
// values, rescaled when the maximum moves (Dao et al., FlashAttention, 2022, arXiv:2205.14135).
//
// Queries that share keys (the heads of a group) are rows of one block. Many rows: a block of keys
// is transposed once and all scores come from broadcasts. Few rows, a decode step: scores are dot
// products along the keys as they lie, and the keys are cut in parts for the threads to share.
#include "attention.h"

#include <cstdlib>

#include "../../toolchain/csrc/vector.h"
#include "form.h"

namespace lepton {
namespace {

constexpr int kKeys = 64;           // keys of a block
constexpr int kStrip = 64;          // rows of a block of queries, about
constexpr int kFew = 8;             // rows that are not worth transposing keys for
constexpr int64_t kPart = 128;      // least keys of a part
constexpr int64_t kMostParts = 64;

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Rows of queries against some keys: what is known of them so far.
struct Rows {
  int count;
  int64_t first;         // position in the row's queries of row 0
  int group;             // heads that share keys: row r is query first + r / group, head r % group
  float* query;          // (count, head_dim), scaled
  float* total;          // (count, head_dim), values weighted so far
  float* maximum;
  float* sum;
  float* scores;         // (count, kKeys)
  float* keys;           // (head_dim, kKeys)
  float* values;         // (kKeys, head_dim)
  AttentionForm form = attention_form();
};

float* take(float*& memory, int64_t count) {
  float* taken = memory;
  memory += (count + 7) / 8 * 8;
  return taken;
}

int64_t floats_of(int count, int head_dim, bool few) {
  const int64_t padded = (count + 7) / 8 * 8;
  return 2 * static_cast<int64_t>(count) * head_dim + 2 * padded + count * kKeys +
         (few ? 0 : 2 * static_cast<int64_t>(head_dim) * kKeys) + 64;
}

Rows rows_in(float* memory, int count, int head_dim, int group, int64_t first, bool few) {
  Rows r{};
  r.count = count;
  r.first = first;
  r.group = group;
  r.query = take(memory, static_cast<int64_t>(count) * head_dim);
  r.total = take(memory, static_cast<int64_t>(count) * head_dim);
  r.maximum = take(memory, count);
  r.sum = take(memory, count);
  r.scores = take(memory, static_cast<int64_t>(count) * kKeys);
  if (!few) r.keys = take(memory, static_cast<int64_t>(head_dim) * kKeys);
  if (!few) r.values = take(memory, static_cast<int64_t>(head_dim) * kKeys);
  return r;
}

void begin(const Attention& a, int64_t batch, int kv_head, const Rows& r) {
  for (int i = 0; i < r.count; ++i) {
    const float* from =
        a.query.at(batch, kv_head * r.group + i % r.group, r.first + i / r.group);
    for (int d = 0; d < a.head_dim; ++d) r.query[i * a.head_dim + d] = from[d] * a.scale;
    for (int d = 0; d < a.head_dim; ++d) r.total[i * a.head_dim + d] = 0.0f;
    r.maximum[i] = kNone;
    r.sum[i] = 0.0f;
  }
}

// keys (head_dim, kKeys) = the keys turned over; what is missing to kKeys is 0.
void transpose(const float* key, int64_t token, int count, int head_dim, float* keys) {
  for (int j = 0; j < kKeys; j += 8) {
    for (int d = 0; d < head_dim; d += 8) {
      __m256 v[8], t[8];
      for (int i = 0; i < 8; ++i) {
        v[i] = j + i < count ? _mm256_loadu_ps(key + (j + i) * token + d) : _mm256_setzero_ps();
      }
      for (int i = 0; i < 4; ++i) {
        t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
      }
      for (int i = 0; i < 2; ++i) {
        v[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        v[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xEE);
        v[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        v[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xEE);
      }
      for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(keys + (d + i) * kKeys + j, _mm256_permute2f128_ps(v[i], v[4 + i], 0x20));
        _mm256_storeu_ps(keys + (d + 4 + i) * kKeys + j,
                         _mm256_permute2f128_ps(v[i], v[4 + i], 0x31));
      }
    }
  }
}

// scores (rows, kKeys) from keys that were turned over.
void scores_of_block(const Attention& a, const Rows& r, const float* key, int count) {
  transpose(key, a.key.token, count, a.head_dim, r.keys);
  const int padded = (count + 7) / 8 * 8;
  r.form.multiply({r.count, a.head_dim, padded}, {r.query, a.head_dim}, {r.keys, kKeys}, false,
                  r.scores, kKeys);
}

// scores (R, count) by dot products; keys stay in the cache for the next rows.
template <int R>
void dots(const float* query, int head_dim, const float* key, int64_t token, int count,
          float* scores) {
  for (int j = 0; j < count; ++j) {
    const float* k = key + j * token;
    __m256 part[R];
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) part[m] = _mm256_setzero_ps();
    for (int d = 0; d < head_dim; d += 8) {
      const __m256 v = _mm256_loadu_ps(k + d);
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) {
        part[m] = _mm256_fmadd_ps(_mm256_loadu_ps(query + m * head_dim + d), v, part[m]);
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) scores[m * kKeys + j] = sum(Eight{part[m]});
  }
}

void scores_of_few(const Attention& a, const Rows& r, const float* key, int count) {
  int m = 0;
  for (; m + 4 <= r.count; m += 4) {
    dots<4>(r.query + m * a.head_dim, a.head_dim, key, a.key.token, count, r.scores + m * kKeys);
  }
  for (; m < r.count; ++m) {
    dots<1>(r.query + m * a.head_dim, a.head_dim, key, a.key.token, count, r.scores + m * kKeys);
  }
}

// Keys that a query sees: from `from` on, up to and without `to`.
struct Sight {
  int64_t from, to;
};

Sight sight(const Attention& a, int64_t batch, int64_t query) {
  const int64_t position = a.offset[batch] + query;
  const int64_t last = a.causal ? least(position + 1, a.keys[batch]) : a.keys[batch];
  if (a.window < 0) return {0, last};
  return {most(0, position + 1 - a.window), last};
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

// Whether none is NaN, which a maximum passes over.
bool all_numbers(const float* s, int padded) {
  bool all = true;
  for (int j = 0; j < padded; j += 8) all = all && all_numbers(Eight::load(s + j));
  return all;
}

// Turn scores into weights, in place, and rescale what there is. 0 for what is out of sight.
void weigh(const Attention& a, int64_t batch, int kv_head, const Rows& r, int64_t start, int count) {
  const int padded = (count + 7) / 8 * 8;
  for (int i = 0; i < r.count; ++i) {
    float* s = r.scores + i * kKeys;
    const int64_t query = r.first + i / r.group;
    const Sight seen = sight(a, batch, query);
    const int from = static_cast<int>(most(0, least(count, seen.from - start)));
    const int to = static_cast<int>(most(from, least(count, seen.to - start)));
    if (a.softcap > 0) r.form.soften(a.softcap, padded, s);
    if (a.bias.data != nullptr) {
      const float* bias = a.bias.at(batch, kv_head * r.group + i % r.group, query) + start;
      call_for(bias + kKeys);
      add_bias(bias, count, s);
    }
    for (int j = 0; j < from; ++j) s[j] = kNone;
    for (int j = to; j < padded; ++j) s[j] = kNone;
    if (a.mask != nullptr) {
      const int32_t* shown = a.mask + batch * a.mask_length + start;
      for (int j = from; j < to; ++j) {
        if (shown[j] == 0) s[j] = kNone;
      }
    }
    Eight widest = Eight::load(s);
    for (int j = 8; j < padded; j += 8) widest = most(widest, Eight::load(s + j));
    const float before = r.maximum[i], now = before > largest(widest) ? before : largest(widest);
    if (now == kNone && all_numbers(s, padded)) {
      for (int j = 0; j < padded; ++j) s[j] = 0.0f;
      continue;
    }
    const float total = r.form.weights(s, padded, now);
    if (now != before) {
      const Eight factor = exponential(Eight::all(before == kNone ? kNone : before - now));
      r.sum[i] *= _mm256_cvtss_f32(factor.v);
      float* t = r.total + i * a.head_dim;
      for (int d = 0; d < a.head_dim; d += 8) (Eight::load(t + d) * factor).store(t + d);
      r.maximum[i] = now;
    }
    r.sum[i] += total;
  }
}

// Values of a block one behind the other: rows of several heads lie a power of two apart, or nearly,
// and drive each other out of the first cache.
const float* gather(const Attention& a, const Rows& r, const float* value, int count) {
  const int head_dim = a.head_dim;
  if (a.value.token == head_dim) return value;
  for (int j = 0; j < count; ++j) {
    for (int d = 0; d < head_dim; d += 8) {
      _mm256_storeu_ps(r.values + j * head_dim + d, _mm256_loadu_ps(value + j * a.value.token + d));
    }
  }
  return r.values;
}

// total (rows, head_dim) += weights . values
void add_values(const Attention& a, const Rows& r, const float* value, int count) {
  value = gather(a, r, value, count);
  r.form.multiply({r.count, count, a.head_dim}, {r.scores, kKeys}, {value, a.head_dim}, true,
                  r.total, a.head_dim);
}

// The same where rows are few: values are read once, as they lie, 4 keys at a time.
void add_values_of_few(const Attention& a, const Rows& r, const float* value, int count) {
  const int64_t token = a.value.token;
  for (int j = 0; j < count; j += 4, value += 4 * token) {
    const int keys = count - j < 4 ? count - j : 4;
    for (int d = 0; d < a.head_dim; d += 8) {
      __m256 v[4];
      for (int k = 0; k < 4; ++k) {
        v[k] = k < keys ? _mm256_loadu_ps(value + k * token + d) : _mm256_setzero_ps();
      }
      for (int i = 0; i < r.count; ++i) {
        const float* s = r.scores + i * kKeys + j;
        float* y = r.total + i * a.head_dim + d;
        __m256 part = _mm256_loadu_ps(y);
        for (int k = 0; k < 4; ++k) part = _mm256_fmadd_ps(_mm256_broadcast_ss(s + k), v[k], part);
        _mm256_storeu_ps(y, part);
      }
    }
  }
}

// All keys of [from, to) that any of the rows sees. Blocks end at multiples of their size and begin
// with whole vectors, whatever is in sight: so a query gets the same numbers to the last bit whether
// those before it are read in the same call or were in an earlier one.
void look(const Attention& a, int64_t batch, int kv_head, const Rows& r, int64_t from, int64_t to,
          bool few) {
  from = most(from, sight(a, batch, r.first).from / 8 * 8);
  to = least(to, sight(a, batch, r.first + (r.count - 1) / r.group).to);
  for (int64_t start = from, end; start < to; start = end) {
    end = least(to, (start / kKeys + 1) * kKeys);
    const int count = static_cast<int>(end - start);
    const float* key = a.key.at(batch, kv_head, start);
    const float* value = a.value.at(batch, kv_head, start);
    if (few) {
      scores_of_few(a, r, key, count);
      weigh(a, batch, kv_head, r, start, count);
      add_values_of_few(a, r, value, count);
    } else {
      scores_of_block(a, r, key, count);
      weigh(a, batch, kv_head, r, start, count);
      add_values(a, r, value, count);
    }
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

// Many queries: a unit is a strip of them.
struct Strips {
  const Attention& a;
  int group;
  int64_t tokens, strips;  // queries of a strip, strips of a row and head
  bool short_of_memory = false;

  void run(int64_t unit) {
    const int64_t strip = unit % strips, rest = unit / strips;
    const int kv_head = static_cast<int>(rest % a.kv_heads);
    const int64_t batch = rest / a.kv_heads, first = strip * tokens;
    const int count = static_cast<int>(least(tokens, a.queries - first)) * group;
    float* memory = static_cast<float*>(
        aligned_alloc(64, (floats_of(count, a.head_dim, false) * sizeof(float) + 63) / 64 * 64));
    if (memory == nullptr) {
      short_of_memory = true;
      return;
    }
    const Rows rows = rows_in(memory, count, a.head_dim, group, first, false);
    begin(a, batch, kv_head, rows);
    look(a, batch, kv_head, rows, 0, a.keys[batch], false);
    finish(a, batch, kv_head, rows);
    free(memory);
  }
};

// Few queries, many keys: a unit is a part of the keys; the parts of a row are added up behind.
struct Parts {
  const Attention& a;
  int group, count;
  int64_t parts, size;   // parts of a row and head, keys of a part
  int64_t floats;
  float* memory;

  Rows rows(int64_t unit) const {
    return rows_in(memory + unit * floats, count, a.head_dim, group, 0, true);
  }

  void run(int64_t unit) const {
    const int64_t part = unit % parts, rest = unit / parts;
    const int kv_head = static_cast<int>(rest % a.kv_heads);
    const int64_t batch = rest / a.kv_heads;
    const Rows r = rows(unit);
    begin(a, batch, kv_head, r);
    const int64_t start = sight(a, batch, 0).from + part * size;
    look(a, batch, kv_head, r, start, part + 1 == parts ? a.keys[batch] : start + size, true);
  }

  void join(int64_t batch, int kv_head) const {
    const int64_t unit = (batch * a.kv_heads + kv_head) * parts;
    const Rows all = rows(unit);
    for (int64_t part = 1; part < parts; ++part) {
      const Rows r = rows(unit + part);
      for (int i = 0; i < count; ++i) {
        if (r.sum[i] == 0) continue;
        const float now = most_of(all.maximum[i], r.maximum[i]);
        const __m256 ours = weight(all.maximum[i], now), theirs = weight(r.maximum[i], now);
        all.sum[i] = all.sum[i] * _mm256_cvtss_f32(ours) + r.sum[i] * _mm256_cvtss_f32(theirs);
        all.maximum[i] = now;
        float *t = all.total + i * a.head_dim, *u = r.total + i * a.head_dim;
        for (int d = 0; d < a.head_dim; d += 8) {
          const __m256 mine = _mm256_mul_ps(_mm256_loadu_ps(t + d), ours);
          _mm256_storeu_ps(t + d, _mm256_fmadd_ps(_mm256_loadu_ps(u + d), theirs, mine));
        }
      }
    }
    finish(a, batch, kv_head, all);
  }

  static float most_of(float x, float y) { return x > y ? x : y; }
  static __m256 weight(float maximum, float now) {
    return exponential(Eight::all(maximum == kNone ? kNone : maximum - now)).v;
  }
};

bool attend_in_strips(const Parallel& parallel, const Attention& a) {
  const int group = a.heads / a.kv_heads;
  const int64_t count = most(1, a.queries * group / kStrip);
  const int64_t tokens = (a.queries + count - 1) / count;
  Strips strips{a, group, tokens, (a.queries + tokens - 1) / tokens};
  parallel.run(
      a.rows * a.kv_heads * strips.strips,
      [](void* user, size_t i) { static_cast<Strips*>(user)->run(static_cast<int64_t>(i)); },
      &strips);
  return !strips.short_of_memory;
}

bool attend_in_parts(const Parallel& parallel, const Attention& a, int64_t longest) {
  const int group = a.heads / a.kv_heads, count = static_cast<int>(a.queries) * group;
  const int64_t pairs = a.rows * a.kv_heads;
  const int64_t wanted = most(1, least(kMostParts / pairs, longest / kPart));
  const int64_t size = (longest + wanted - 1) / wanted;
  const int64_t floats = (floats_of(count, a.head_dim, true) + 15) / 16 * 16;
  void* memory = aligned_alloc(64, pairs * wanted * floats * sizeof(float));
  if (memory == nullptr) return false;
  Parts parts{a, group, count, wanted, size, floats, static_cast<float*>(memory)};
  parallel.run(
      pairs * wanted,
      [](void* user, size_t i) { static_cast<const Parts*>(user)->run(static_cast<int64_t>(i)); },
      &parts);
  for (int64_t b = 0; b < a.rows; ++b) {
    for (int h = 0; h < a.kv_heads; ++h) parts.join(b, h);
  }
  free(memory);
  return true;
}

}  // namespace

bool attend(const Parallel& parallel, const Attention& a) {
  if (a.rows == 0 || a.queries == 0) return true;
  int64_t longest = 1;
  for (int64_t b = 0; b < a.rows; ++b) {
    const Sight seen = sight(a, b, a.queries - 1);
    longest = most(longest, seen.to - sight(a, b, 0).from);
  }
  const bool few = a.queries * (a.heads / a.kv_heads) <= kFew;
  return few ? attend_in_parts(parallel, a, longest) : attend_in_strips(parallel, a);
}

}  // namespace lepton
