#include "rounded.h"

#include <cstdlib>

#include "../../toolchain/csrc/vector.h"
#include "bytes.h"
#include "halves.h"
#include "transpose.h"

namespace lepton {
namespace {

constexpr float kHidden = -1e4f;  // or less in a bias: such a key has no weight beside any other

__m256i rounded(const float* x, float factor) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), _mm256_set1_ps(factor)));
}

// Rows of four keys, a byte of each for each column.
void round_four(const float* const (&value)[4], const float (&factor)[4], int head_dim, int8_t* to) {
  const __m256i byte = _mm256_set1_epi32(255);
  for (int d = 0; d < head_dim; d += 8) {
    __m256i four = _mm256_setzero_si256();
    for (int i = 3; i >= 0; --i) {
      const __m256i each = _mm256_and_si256(rounded(value[i] + d, factor[i]), byte);
      four = _mm256_or_si256(_mm256_slli_epi32(four, 8), each);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 4 * d), four);
  }
}

struct Work {
  const Attention& a;
  RoundedKeys to;

  void run(int64_t unit) const {
    const int64_t block = to.first + unit % to.blocks, head = unit / to.blocks;
    const int64_t b = head / a.kv_heads, h = head % a.kv_heads, start = block * kKeys;
    const int64_t filled = a.keys[b] - start;
    const bool in_sight = a.window < 0 || start + kKeys > a.offset[b] - a.window;
    if (filled <= 0 || !in_sight || !rounds(a, b)) return;
    const int count = static_cast<int>(filled < kKeys ? filled : kKeys);
    const RoundedBlock y = to.at(head, block);
    const Block block_of_keys{b, h, start, count};
    keys(block_of_keys, y);
    values(block_of_keys, y);
  }

  struct Block {
    int64_t batch, head, start;
    int count;
  };

  // A row of floats, in `room` where it has to be made.
  const float* row(const Stored& of, const Block& block, int64_t key, float* room) const {
    const int64_t b = block.batch, h = block.head, at = block.start + key;
    if (of.kept == Kept::floats) return of.at<float>(b, h, at);
    if (of.kept == Kept::halves) widen(of.at<uint16_t>(b, h, at), 0, 1, a.head_dim, room);
    if (of.kept == Kept::bytes) widen(of.at<int8_t>(b, h, at), 0, 1, a.head_dim, room);
    return room;
  }

  // Pairs of words turned over, as if they were floats.
  void keys(const Block& block, const RoundedBlock& y) const {
    const int64_t width = padded_width(a.head_dim);
    const int count = block.count;
    alignas(64) int16_t rows[kKeys * kMostRounded];
    float room[kMostRounded];
    for (int j = 0; j < count; ++j) {
      y.key_scale[j] = round_words(row(a.key, block, j, room), a.head_dim, rows + j * width);
    }
    for (int j = count; j < kKeys; ++j) y.key_scale[j] = 0.0f;
    transpose(reinterpret_cast<const float*>(rows), width / 2, count, static_cast<int>(width / 2),
              reinterpret_cast<float*>(y.keys));
  }

  void values(const Block& block, const RoundedBlock& y) const {
    float room[4][kMostRounded];
    for (int j = 0; j < kKeys; j += 4) {
      const float* four[4];
      float factor[4];
      for (int i = 0; i < 4; ++i) {
        const bool is = j + i < block.count;
        four[i] = row(a.value, block, is ? j + i : 0, room[i]);
        const Rounding how =
            is ? rounding(largest_magnitude<Eight>(four[i], a.head_dim), kLevelsOfValues)
               : Rounding{};
        factor[i] = how.factor;
        y.value_scale[j + i] = how.scale;
      }
      round_four(four, factor, a.head_dim, y.values + j * a.head_dim);
    }
  }
};

// How many are left of `count` without those at either end that are hidden.
template <class Hidden>
int64_t between(int64_t count, Hidden hidden) {
  int64_t from = 0;
  while (count > 0 && hidden(count - 1)) --count;
  while (from < count && hidden(from)) ++from;
  return count - from;
}

// Tokens of a row that are no padding: their keys are in sight.
int64_t filled(const Attention& a, int64_t batch) {
  if (a.filled != nullptr) return a.filled[batch];
  if (a.mask != nullptr) {
    const int32_t* mask = a.mask + batch * a.mask_length;
    return between(a.mask_length, [mask](int64_t i) { return mask[i] == 0; });
  }
  if (a.bias.data == nullptr) return a.queries;
  // Where there is an order in the bias, the last query sees as much as any.
  const float* bias = a.bias.at(batch, 0, a.queries - 1);
  return between(a.keys[batch], [bias](int64_t i) { return bias[i] <= kHidden; });
}

}  // namespace

bool rounds(const Attention& a, int64_t batch) {
  const int64_t group = a.heads / a.kv_heads;
  if (!a.rounded || a.head_dim > kMostRounded || a.queries * group <= kFewRounded) return false;
  return filled(a, batch) * group > kFewRounded;
}

float round_words(const float* x, int count, int16_t* to) {
  const float scale = round_row(x, count, kLevels, to);
  if (count % 16 != 0) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + count), _mm_setzero_si128());
  }
  return scale;
}

bool round_keys(const Parallel& parallel, const Attention& a, int64_t first, int64_t end,
                RoundedKeys* keys) {
  const int64_t begin = first / kKeys, behind = (end + kKeys - 1) / kKeys;
  const int64_t blocks = behind > begin ? behind - begin : 1;
  const int64_t floats = 2 * kKeys * sizeof(float), heads = a.rows * a.kv_heads;
  const int64_t bytes = floats + kKeys * (2 * padded_width(a.head_dim) + a.head_dim);
  *keys = {static_cast<char*>(aligned_alloc(64, heads * blocks * bytes)), bytes, blocks, begin,
           a.head_dim};
  if (keys->memory == nullptr) return false;
  Work work{a, *keys};
  parallel.run(
      heads * blocks,
      [](void* user, size_t i) { static_cast<const Work*>(user)->run(static_cast<int64_t>(i)); },
      &work);
  return true;
}

}  // namespace lepton
