// Activations, rounded as they come, with a scale for each block: tiles.h says to what. Rounding is to
// nearest even; the largest magnitude of a block becomes the largest integer.
#pragma once
#include "../../toolchain/csrc/vector.h"
#include "tiles.h"

namespace lepton {
namespace {

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
template <class Lanes, int kLength>
Sums place(const float* x, int length, float factor, int rows, int8_t* q) {
  const int block = kLength == 0 ? length : kLength;
  const Lanes factors = Lanes::all(factor);
  RoundedSums total;
  int i = 0;
#pragma GCC unroll 8
  for (; i + Lanes::kLanes <= block; i += Lanes::kLanes, q += Lanes::kLanes * rows) {
    total.add(store_bytes(Lanes::load(x + i) * factors, q, 4 * rows));
  }
  for (; i < block; i += 8, q += 8 * rows) {
    total.add(store_bytes(Eight::load(x + i) * Eight::all(factor), q, 4 * rows));
  }
  return {total.first(), total.other()};
}

// In registers: parts that are stored one by one cannot be loaded as a whole at once.
const float* gather(const float* x, const int32_t* order, int count, float* to) {
  for (int i = 0; i < count; i += 8, order += 8) {
    _mm256_storeu_ps(to + i, _mm256_setr_ps(x[order[0]], x[order[1]], x[order[2]], x[order[3]],
                                            x[order[4]], x[order[5]], x[order[6]], x[order[7]]));
  }
  return to;
}

constexpr int kSome = 64;  // blocks of a row, whose scales are computed together

// From the largest magnitude of each of `count` blocks its scale, and the factor that makes integers of its
// numbers. Infinity and NaN have no place among integers: all of the row is NaN. Blocks of which the factor
// would be infinite are zeros.
template <class Lanes>
void scales_of(float limit, int count, float (&scale)[kSome], float (&factor)[kSome]) {
  const Lanes most_integer = Lanes::all(limit), zero = Lanes::all(0.0f);
  for (int i = 0; i < count; i += Lanes::kLanes) {
    const Lanes most = Lanes::load(scale + i);
    zero_below(most, kLeast, most_integer / most).store(factor + i);
    fused(most, zero, most / most_integer).store(scale + i);
  }
}

// Blocks have kLength numbers, or where that is 0 as many as the shape says; 32 where there is an order.
template <class Lanes, int kLength>
void quantize_blocks(Shape shape, const float* x, const int32_t* order, const Place& to) {
  alignas(64) float gathered[kSome * kBlock], scale[kSome] = {}, factor[kSome];
  const int block = kLength == 0 ? shape.activation_block() : kLength;
  const int rows = to.rows, blocks = shape.inner / block, group_blocks = shape.group / block;
  const float limit = shape.bits == 7 ? 63.0f : 127.0f;
  int8_t* numbers = to.numbers;
  for (int first = 0; first < blocks; first += kSome) {
    const int count = blocks - first < kSome ? blocks - first : kSome;
    const float* some = x + first * block;
    if (order != nullptr) some = gather(x, order + first * block, count * block, gathered);
    for (int i = 0; i < count; ++i) scale[i] = largest_magnitude<Lanes>(some + i * block, block);
    scales_of<Lanes>(limit, count, scale, factor);
    for (int i = 0; i < count; ++i, numbers += block * rows) {
      const int b = first + i;
      const Sums sums = place<Lanes, kLength>(some + i * block, block, factor[i], rows, numbers);
      to.scale[b * rows] = scale[i];
      to.start[b * rows] = start_of(shape, sums, to.halves);
      if (to.shift != nullptr) {
        float* shift = to.shift + b / group_blocks * rows;
        const float before = b % group_blocks == 0 ? 0.0f : *shift;
        *shift = before + scale[i] * static_cast<float>(sums.all());
      }
    }
  }
}

template <class Lanes>
void quantize_row(Shape shape, const float* x, const int32_t* order, const Place& to) {
  if (order != nullptr) {
    // Out of order, no processor foresees what lines will be read.
    for (int i = 0; i < shape.inner; i += 16) __builtin_prefetch(x + i);
  }
  const int block = shape.activation_block();
  if (block == kBlock) return quantize_blocks<Lanes, kBlock>(shape, x, order, to);
  if (block == kLongBlock) return quantize_blocks<Lanes, kLongBlock>(shape, x, order, to);
  quantize_blocks<Lanes, 0>(shape, x, order, to);
}

}  // namespace
}  // namespace lepton
