// The loop over a tile that the kernels of all processors share. What differs is a kind of numbers:
//
//   kDepth   how much of a dot product a step takes
//   kBytes   of the tile, in a step
//   Read     the weights of a step, made from their bytes
//   Sum      of products of one row and the 16 columns, in integers; made from its start, with
//            add(weights, activations, distance of the next 4 bytes of the same row)
//   Scales   of a group, or its offsets, made from their kBytes
//   Total    of one row and the 16 columns, in fp32; clear(), add(sum, scales, scale of the
//            activations), shift(offsets, sum of the activations), store(result, row)
#pragma once
#include "tiles.h"

namespace lepton {

// With bias and activation, or fewer columns. Its own function: many results need none of it.
__attribute__((noinline)) static void store_finished(const Result& r, float* y, __m256 low,
                                                     __m256 high) {
  float all[kTile] = {};
  if (r.bias != nullptr) {
    const float* bias = r.bias;
    if (r.columns < kTile) {
      __builtin_memcpy(all, bias, r.columns * sizeof(float));
      bias = all;
    }
    low = _mm256_add_ps(low, _mm256_loadu_ps(bias));
    high = _mm256_add_ps(high, _mm256_loadu_ps(bias + 8));
  }
  if (r.activation != Activation::kNone) {
    low = activated(r.activation, low);
    high = activated(r.activation, high);
  }
  float* to = r.columns == kTile ? y : all;
  _mm256_storeu_ps(to, low);
  _mm256_storeu_ps(to + 8, high);
  if (to == all) __builtin_memcpy(y, all, r.columns * sizeof(float));
}

template <class Kind, bool kOffsets, int R>
static inline void multiply_rows(Shape shape, const uint8_t* packed, const Activations& a,
                                 const Result& result) {
  // Results lie far apart. Stores that wait for their lines would hold up the next tile.
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) __builtin_prefetch(result.y + m * result.stride, 1);
  typename Kind::Total total[R];
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) total[m].clear();  // a constructor would be one call of memset
  const uint8_t* x = static_cast<const uint8_t*>(a.numbers);
  const float* scale = a.scale;
  const int32_t* start = a.start;
  const float* shift = a.shift;
  const int block = Shape{Kind::kBits, 0, shape.group}.activation_block();  // a constant, for 4 bits
  for (int g = 0; g < shape.inner; g += shape.group) {
    const typename Kind::Scales scales(packed);
    packed += Kind::Scales::kBytes;
    const uint8_t* const offsets_at = packed;
    if constexpr (kOffsets) packed += Kind::Scales::kBytes;
    for (int b = 0; b < shape.group; b += block, scale += R, start += R) {
      typename Kind::Sum sum[R];
#pragma GCC unroll 8
      for (int m = 0; m < R; ++m) sum[m] = typename Kind::Sum(start[m]);
      for (int k = 0; k < block; k += Kind::kDepth) {
        const typename Kind::Read weights(packed);
#pragma GCC unroll 8
        for (int m = 0; m < R; ++m) sum[m].add(weights, x + 4 * m, 4 * R);
        packed += Kind::kBytes;
        x += Kind::kDepth * (Kind::kBits == 8 ? 2 : 1) * R;
      }
#pragma GCC unroll 8
      for (int m = 0; m < R; ++m) total[m].add(sum[m], scales, scale[m]);
    }
    if constexpr (kOffsets) {
      // Read behind the products, which leave no registers.
      const typename Kind::Scales offsets(offsets_at);
#pragma GCC unroll 8
      for (int m = 0; m < R; ++m) total[m].shift(offsets, shift[m]);
      shift += R;
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) total[m].store(result, m);
}

// Results of 16 columns of one row, 8 in each half.
static inline void store_columns(const Result& r, int row, __m256 low, __m256 high) {
  float* y = r.y + row * r.stride;
  if (r.columns < kTile || r.bias != nullptr || r.activation != Activation::kNone) {
    return store_finished(r, y, low, high);
  }
  _mm256_storeu_ps(y, low);
  _mm256_storeu_ps(y + 8, high);
}

// Dispatch on the number of rows, R at most.
template <class Kind, bool kOffsets, int R>
static inline void multiply_kind(Shape shape, const uint8_t* tile, const Activations& a,
                                 const Result& result) {
  if (a.rows == R) {
    multiply_rows<Kind, kOffsets, R>(shape, tile, a, result);
  } else if constexpr (R > 1) {
    multiply_kind<Kind, kOffsets, R - 1>(shape, tile, a, result);
  }
}

template <class Kind, int R>
static inline void multiply_either(Shape shape, const uint8_t* tile, const Activations& a,
                                   const Result& result) {
  if (shape.offsets) {
    multiply_kind<Kind, true, R>(shape, tile, a, result);
  } else {
    multiply_kind<Kind, false, R>(shape, tile, a, result);
  }
}

template <class Four, class Floats, class Spread, class Seven, class Eight, int R>
static inline void multiply_any(Shape shape, const uint8_t* tile, const Activations& a,
                                const Result& result) {
  if (shape.bits == 7) {
    multiply_kind<Seven, false, R>(shape, tile, a, result);
  } else if (shape.bits == 8) {
    multiply_either<Eight, R>(shape, tile, a, result);
  } else if (shape.spread) {
    multiply_either<Spread, R>(shape, tile, a, result);
  } else if (shape.floats) {
    multiply_kind<Floats, false, R>(shape, tile, a, result);
  } else {
    multiply_either<Four, R>(shape, tile, a, result);
  }
}

}  // namespace lepton
