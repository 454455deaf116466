// Activations, rounded as they come, with a scale for each block: tiles.h says to what. Rounding is to
// nearest even; the largest magnitude of a block becomes the largest integer.
#pragma once
#include "../../toolchain/csrc/vector.h"
#include "tiles.h"

namespace lepton {
namespace {

constexpr float kLargest = 3.4028235e38f;

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

// Rounded numbers, added up.
struct RoundedSums {
  __m256i eight = _mm256_setzero_si256();

  void add(__m256i more) { eight = _mm256_add_epi32(eight, more); }

  int32_t first() const { return _mm_cvtsi128_si32(halves()); }
  int32_t other() const { return _mm_extract_epi32(halves(), 2); }

 private:
  __m128i halves() const {
    const __m128i four =
        _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    return _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1));
  }
};

int32_t start_of(Shape shape, Sums sums, bool halves) {
  const int32_t less = -shape.middle();
  if (shape.bits != 4 || !halves) return times(less, sums.all());
  // 12 * 16 * 127 fits in 16 bits.
  const auto low = static_cast<uint16_t>(times(less, sums.first));
  return static_cast<int32_t>(static_cast<uint32_t>(times(less, sums.other)) << 16 | low);
}

// Numbers become bytes, and each 4 of them go where the row's next place is.
template <class Lanes>
Sums place(const float* x, int block, float factor, int rows, int8_t* q) {
  const Lanes factors = Lanes::all(factor);
  RoundedSums total;
  int i = 0;
  for (; i + Lanes::kLanes <= block; i += Lanes::kLanes, q += Lanes::kLanes * rows) {
    total.add(store_bytes(Lanes::load(x + i) * factors, q, 4 * rows));
  }
  for (; i < block; i += 8, q += 8 * rows) {
    total.add(store_bytes(Eight::load(x + i) * Eight::all(factor), q, 4 * rows));
  }
  return {total.first(), total.other()};
}

// In registers: parts that are stored one by one cannot be loaded as a whole at once.
const float* gather(const float* x, const int32_t* order, float* block) {
  for (int i = 0; i < kBlock; i += 8, order += 8) {
    _mm256_storeu_ps(block + i, _mm256_setr_ps(x[order[0]], x[order[1]], x[order[2]], x[order[3]],
                                               x[order[4]], x[order[5]], x[order[6]], x[order[7]]));
  }
  return block;
}

template <class Lanes>
void quantize_row(Shape shape, const float* x, const int32_t* order, const Place& to) {
  float gathered[kBlock];
  const int rows = to.rows, block = shape.activation_block(), group_blocks = shape.group / block;
  int8_t* numbers = to.numbers;
  const float limit = shape.bits == 7 ? 63.0f : 127.0f;
  if (order != nullptr) {
    // Out of order, no processor foresees what lines will be read.
    for (int i = 0; i < shape.inner; i += 16) __builtin_prefetch(x + i);
  }
  for (int b = 0; b < shape.blocks(); ++b) {
    const float* part = x + b * block;
    if (order != nullptr) part = gather(x, order + b * block, gathered);
    const float most = largest_magnitude<Lanes>(part, block);
    const float factor = most > 0 ? limit / most : 0.0f;
    float scale = most / limit;
    // Infinity and NaN have no place among integers: all of the row is NaN.
    if (__builtin_expect(!(most <= kLargest), 0)) scale = __builtin_nanf("");
    to.scale[b * rows] = scale;
    const Sums sums = place<Lanes>(part, block, factor, rows, numbers);
    to.start[b * rows] = start_of(shape, sums, to.halves);
    if (to.shift != nullptr) {
      float* shift = to.shift + b / group_blocks * rows;
      const float before = b % group_blocks == 0 ? 0.0f : *shift;
      *shift = before + scale * static_cast<float>(sums.all());
    }
    numbers += block * rows;
  }
}

}  // namespace
}  // namespace lepton
