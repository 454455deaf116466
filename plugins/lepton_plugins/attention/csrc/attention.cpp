// Keys go by in blocks; a block of queries keeps a running maximum, a running sum and its weighted
// values, rescaled when the maximum moves (Dao et al., FlashAttention, 2022, arXiv:2205.14135).
//
// Queries that share keys (the heads of a group) are rows of one block. Many rows: a block of keys
// is transposed and all scores come from broadcasts; in small integers that is done once, for all that
// read it. Few rows, a decode step: scores are dot products along the keys as they lie, and the keys are
// cut in parts for the threads to share.
#include "attention.h"

#include <cstdlib>

#include "../../toolchain/csrc/vector.h"
#include "rounded.h"
#include "rows.h"

namespace lepton {
namespace {

constexpr int kStrip = 64;          // rows of a block of queries, about
constexpr int64_t kPart = 128;      // least keys of a part
constexpr int64_t kMostParts = 64;
constexpr int64_t kFewStrips = 8;

// Many queries: a unit is a strip of them.
struct Strips {
  const Attention& a;
  int group;
  int64_t tokens, strips;  // queries of a strip, strips of a row and head
  const RoundedKeys* rounded;
  bool short_of_memory = false;

  void run(int64_t unit) {
    const int64_t strip = unit % strips, rest = unit / strips;
    const int kv_head = static_cast<int>(rest % a.kv_heads);
    const int64_t batch = rest / a.kv_heads, first = strip * tokens;
    const int count = static_cast<int>(smaller(tokens, a.queries - first)) * group;
    const Kind kind = rounded != nullptr && rounds(a, batch) ? Kind::rounded : Kind::many;
    float* memory = static_cast<float*>(
        aligned_alloc(64, (floats_of(count, a.head_dim, kind) * sizeof(float) + 63) / 64 * 64));
    if (memory == nullptr) {
      short_of_memory = true;
      return;
    }
    Rows rows = rows_in(memory, count, a.head_dim, group, first, kind);
    rows.rounded = rounded;
    begin(a, batch, kv_head, rows);
    look(a, batch, kv_head, rows, 0, a.keys[batch]);
    finish(a, batch, kv_head, rows);
    free(memory);
  }
};

// Of rows whose keys are cut in parts.
Kind kind_of_parts(const Attention& a, int count) {
  if (count > kFew) return Kind::many;
  return a.key.kept == Kept::bytes ? Kind::few_bytes : Kind::few;
}

// A query or a few, many keys: a unit is a part of the keys; the parts of a row are added up behind.
struct Parts {
  const Attention& a;
  int group, count;
  Kind kind;
  int64_t parts, size;   // parts of a row and head, keys of a part
  int64_t floats;
  float* memory;

  Rows rows(int64_t unit) const {
    return rows_in(memory + unit * floats, count, a.head_dim, group, 0, kind);
  }

  void run(int64_t unit) const {
    const int64_t part = unit % parts, rest = unit / parts;
    const int kv_head = static_cast<int>(rest % a.kv_heads);
    const int64_t batch = rest / a.kv_heads;
    const Rows r = rows(unit);
    begin(a, batch, kv_head, r);
    const int64_t start = sight(a, batch, 0).from + part * size;
    look(a, batch, kv_head, r, start, part + 1 == parts ? a.keys[batch] : start + size);
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

bool attend_in_strips(const Parallel& parallel, const Attention& a, int64_t first, int64_t end) {
  const int group = a.heads / a.kv_heads;
  const int64_t count = larger(1, a.queries * group / kStrip);
  const int64_t tokens = (a.queries + count - 1) / count;
  bool round = false;
  for (int64_t b = 0; b < a.rows && !round; ++b) round = rounds(a, b);
  RoundedKeys rounded{};
  if (round && !round_keys(parallel, a, first, end, &rounded)) return false;
  Strips strips{a, group, tokens, (a.queries + tokens - 1) / tokens, round ? &rounded : nullptr};
  parallel.run(
      a.rows * a.kv_heads * strips.strips,
      [](void* user, size_t i) { static_cast<Strips*>(user)->run(static_cast<int64_t>(i)); },
      &strips);
  free(rounded.memory);
  return !strips.short_of_memory;
}

bool attend_in_parts(const Parallel& parallel, const Attention& a, int64_t longest) {
  const int group = a.heads / a.kv_heads, count = static_cast<int>(a.queries) * group;
  const int64_t pairs = a.rows * a.kv_heads;
  const Kind kind = kind_of_parts(a, count);
  // Where blocks of keys are turned over each part has room for one: there are fewer, and larger ones.
  const int64_t most = kind == Kind::many ? kMostParts / 4 : kMostParts;
  const int64_t wanted = larger(1, smaller(most / pairs, longest / kPart));
  const int64_t size = (longest + wanted - 1) / wanted;
  const int64_t floats = (floats_of(count, a.head_dim, kind) + 15) / 16 * 16;
  void* memory = aligned_alloc(64, pairs * wanted * floats * sizeof(float));
  if (memory == nullptr) return false;
  Parts parts{a, group, count, kind, wanted, size, floats, static_cast<float*>(memory)};
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
  int64_t longest = 1, first = INT64_MAX, end = 0;
  for (int64_t b = 0; b < a.rows; ++b) {
    const int64_t from = sight(a, b, 0).from, to = sight(a, b, a.queries - 1).to;
    longest = larger(longest, to - from);
    first = smaller(first, from);
    end = larger(end, to);
  }
  // Of a single query keys are cut in parts, too, where strips would be too few for the threads.
  const int64_t count = a.queries * (a.heads / a.kv_heads);
  const bool single = a.queries == 1 && count <= kFewRounded && a.rows * a.kv_heads < kFewStrips;
  const bool parts = count <= kFew || single;
  return parts ? attend_in_parts(parallel, a, longest) : attend_in_strips(parallel, a, first, end);
}

}  // namespace lepton
