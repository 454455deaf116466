// Rounding is to nearest even; the largest magnitude of a block becomes the largest integer.
#include "quantize.h"

#include <immintrin.h>

#include <initializer_list>

namespace lepton {
namespace {

constexpr float kLargest = 3.4028235e38f;

float largest_magnitude(const float* x, int count) {
  // Compared as integers: then NaN is above all, where the processor's maximum of floats drops it.
  const __m256i magnitude = _mm256_set1_epi32(INT32_MAX);
  __m256i most = _mm256_setzero_si256();
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i v = _mm256_castps_si256(_mm256_loadu_ps(x + i));
    most = _mm256_max_epi32(most, _mm256_and_si256(magnitude, v));
  }
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xB1));
  for (; i < count; ++i) {
    const __m128i v = _mm_castps_si128(_mm_load_ss(x + i));
    half = _mm_max_epi32(half, _mm_and_si128(_mm256_castsi256_si128(magnitude), v));
  }
  return _mm_cvtss_f32(_mm_castsi128_ps(half));
}

// Of rows that are NaN the sums are anything: they wrap.
int32_t plus(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

int32_t times(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

// Of the first two of each four numbers, and of the other two.
struct Sums {
  int32_t first, other;

  int32_t all() const { return plus(first, other); }
};

Sums sums_of(__m256i v) {
  __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xB1));
  return {_mm_cvtsi128_si32(half), _mm_extract_epi32(half, 2)};
}

// Largest integer such that the products of a block with int8 weights stay below 2^31. Those with
// offsets go to -128.
int largest16(Shape shape) {
  const int most = INT32_MAX / ((shape.offsets ? 128 : 127) * shape.activation_block());
  return most < INT16_MAX ? most : INT16_MAX;
}

int32_t start_of(Shape shape, Sums sums, bool halves) {
  const int32_t less = -shape.middle();
  if (shape.bits != 4 || !halves) return times(less, sums.all());
  // 12 * 16 * 127 fits in 16 bits.
  const auto low = static_cast<uint16_t>(times(less, sums.first));
  return static_cast<int32_t>(static_cast<uint32_t>(times(less, sums.other)) << 16 | low);
}

inline __m256i rounded(const float* x, __m256 factor) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor));
}

// 8 numbers at a time become 8 bytes, and go where the row's next two places are.
Sums place8(const float* x, int block, float factor, int rows, int8_t* q) {
  const __m256 factors = _mm256_set1_ps(factor);
  __m256i total = _mm256_setzero_si256();
  for (int i = 0; i < block; i += 8, q += 8 * rows) {
    const __m256i wide = rounded(x + i, factors);
    total = _mm256_add_epi32(total, wide);
    const __m256i words = _mm256_packs_epi32(wide, wide), bytes = _mm256_packs_epi16(words, words);
    const int32_t first = _mm256_extract_epi32(bytes, 0), second = _mm256_extract_epi32(bytes, 4);
    __builtin_memcpy(q, &first, 4);
    __builtin_memcpy(q + 4 * rows, &second, 4);
  }
  return sums_of(total);
}

Sums place16(const float* x, int block, float factor, int rows, int8_t* q) {
  const __m256 factors = _mm256_set1_ps(factor);
  __m256i total = _mm256_setzero_si256();
  int i = 0;
  for (; i + 8 <= block; i += 8) {
    const __m256i wide = rounded(x + i, factors), words = _mm256_packs_epi32(wide, wide);
    total = _mm256_add_epi32(total, wide);
    alignas(32) int8_t bytes[32];
    _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), words);
    for (int at : {0, 4, 16, 20}) {
      __builtin_memcpy(q, bytes + at, 4);
      q += 4 * rows;
    }
  }
  int32_t rest = 0;
  for (; i < block; i += 2, q += 4 * rows) {
    const int16_t pair[2] = {static_cast<int16_t>(_mm_cvtss_si32(_mm_set_ss(x[i] * factor))),
                             static_cast<int16_t>(_mm_cvtss_si32(_mm_set_ss(x[i + 1] * factor)))};
    rest += pair[0] + pair[1];
    __builtin_memcpy(q, pair, 4);
  }
  const Sums sums = sums_of(total);
  return {plus(sums.first, rest), sums.other};
}

// In registers: parts that are stored one by one cannot be loaded as a whole at once.
const float* gather(const float* x, const int32_t* order, float* block) {
  for (int i = 0; i < kBlock4; i += 8, order += 8) {
    _mm256_storeu_ps(block + i, _mm256_setr_ps(x[order[0]], x[order[1]], x[order[2]], x[order[3]],
                                               x[order[4]], x[order[5]], x[order[6]], x[order[7]]));
  }
  return block;
}

}  // namespace

void quantize_row(Shape shape, const float* x, const int32_t* order, const Place& to) {
  float gathered[kBlock4];
  const int rows = to.rows, block = shape.activation_block(), group_blocks = shape.group / block;
  int8_t* numbers = to.numbers;
  const int largest = shape.bits == 4 ? 127 : shape.bits == 7 ? 63 : largest16(shape);
  const float limit = static_cast<float>(largest);
  if (order != nullptr) {
    // Out of order, no processor foresees what lines will be read.
    for (int i = 0; i < shape.inner; i += 16) __builtin_prefetch(x + i);
  }
  for (int b = 0; b < shape.blocks(); ++b) {
    const float* part = x + b * block;
    if (order != nullptr) part = gather(x, order + b * block, gathered);
    const float most = largest_magnitude(part, block);
    const float factor = most > 0 ? limit / most : 0.0f;
    float scale = most / limit;
    // Infinity and NaN have no place among integers: all of the row is NaN.
    if (__builtin_expect(!(most <= kLargest), 0)) scale = __builtin_nanf("");
    to.scale[b * rows] = scale;
    const Sums sums = (shape.bits == 8 ? place16 : place8)(part, block, factor, rows, numbers);
    to.start[b * rows] = start_of(shape, sums, to.halves);
    if (to.shift != nullptr) {
      float* shift = to.shift + b / group_blocks * rows;
      const float before = b % group_blocks == 0 ? 0.0f : *shift;
      *shift = before + scale * static_cast<float>(sums.all());
    }
    numbers += block * shape.activation_bytes() * rows;
  }
}

}  // namespace lepton
