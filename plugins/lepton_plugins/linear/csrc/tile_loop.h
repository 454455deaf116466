// The loop over a tile that the kernels of all processors share. What differs is a kind of numbers:
//
//   kDepth   how much of a dot product a step takes
//   kBytes   of the tile, in a step
//   kSteps   that are written out one after the other
//   Read     the weights of a step, made from their bytes
//   Sum      of products of one row and the 16 columns, in integers; made from its start, with
//            add(weights, activations, distance of the next 4 bytes of the same row)
//   Scales   of a group, or its offsets, made from their kBytes
//   Total    of one row and the 16 columns, in fp32; begin(bias), add(sum, scales, scale of the
//            activations), shift(offsets, sum of the activations), store(where)
#pragma once
#include "tiles.h"

namespace lepton {

// A part of each of T tiles.
template <class Part, int T>
struct Each;

template <class Part>
struct Each<Part, 1> {
  Part first;

  Each(const uint8_t* p, ptrdiff_t) : first(p) {}
  const Part& operator[](int) const { return first; }
};

template <class Part>
struct Each<Part, 2> {
  Part first, second;

  Each(const uint8_t* p, ptrdiff_t apart) : first(p), second(p + apart) {}
  const Part& operator[](int t) const { return t == 0 ? first : second; }
};

// A step of all sums; `packed` and `x` become those of the next.
template <class Kind, int R, int T>
static inline void add_step(typename Kind::Sum (&sum)[T][R], const uint8_t*& packed, ptrdiff_t apart,
                            const uint8_t*& x) {
  const Each<typename Kind::Read, T> weights(packed, apart);
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
    for (int t = 0; t < T; ++t) sum[t][m].add(weights[t], x + 4 * m, 4 * R);
  }
  packed += Kind::kBytes;
  x += Kind::kDepth * R;
}

constexpr size_t kAhead = 8192;  // 1 KB is worse than nothing

// Have what is read a while later come from memory: processors foresee a stream within a page alone.
// Inside of its caller, for GCC leaves out calls of a function that does nothing but this.
__attribute__((always_inline)) static inline void call_for(const uint8_t* packed, size_t bytes,
                                                           const uint8_t* end) {
  if (packed + kAhead >= end) return;
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(packed + kAhead + i);
}

template <class Kind, bool kOffsets, int R, int T>
static inline void multiply_rows(Shape shape, const Tiles& tiles, const Activations& a,
                                 const Totals& totals) {
  typename Kind::Total total[T][R];
#pragma GCC unroll 2
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int m = 0; m < R; ++m) total[t][m].begin(tiles.bias + t * kTile);
  }
  const uint8_t* packed = tiles.first;
  const uint8_t* const end = packed + tiles.rest;
  const size_t group_bytes = shape.group_bytes();
  const uint8_t* x = static_cast<const uint8_t*>(a.numbers);
  const float* scale = a.scale;
  const int32_t* start = a.start;
  const float* shift = a.shift;
  const int block = Shape{Kind::kBits, 0, shape.group}.activation_block();  // a constant, for 4 bits
  for (int g = 0; g < shape.inner; g += shape.group) {
    if constexpr (T == 1) call_for(packed, group_bytes, end);
    const Each<typename Kind::Scales, T> scales(packed, tiles.apart);
    packed += Kind::Scales::kBytes;
    const uint8_t* const offsets_at = packed;
    if constexpr (kOffsets) packed += Kind::Scales::kBytes;
    for (int b = 0; b < shape.group; b += block, scale += R, start += R) {
      typename Kind::Sum sum[T][R];
#pragma GCC unroll 8
      for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) sum[t][m] = typename Kind::Sum(start[m]);
      }
      constexpr int kChunk = Kind::kSteps * Kind::kDepth;
      int k = 0;
      for (; k + kChunk <= block; k += kChunk) {
#pragma GCC unroll 8
        for (int i = 0; i < Kind::kSteps; ++i) {
          add_step<Kind, R, T>(sum, packed, tiles.apart, x);
        }
      }
      for (; k < block; k += Kind::kDepth) {
        add_step<Kind, R, T>(sum, packed, tiles.apart, x);
      }
#pragma GCC unroll 8
      for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) total[t][m].add(sum[t][m], scales[t], scale[m]);
      }
    }
    if constexpr (kOffsets) {
      // Read behind the products, which leave no registers.
      const Each<typename Kind::Scales, T> offsets(offsets_at, tiles.apart);
#pragma GCC unroll 8
      for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) total[t][m].shift(offsets[t], shift[m]);
      }
      shift += R;
    }
  }
#pragma GCC unroll 2
  for (int t = 0; t < T; ++t) {
#pragma GCC unroll 8
    for (int m = 0; m < R; ++m) total[t][m].store(totals.at(t, m));
  }
}

// Dispatch on the number of rows, R at most; T tiles at once.
template <class Kind, bool kOffsets, int R, int T>
static inline void multiply_kind(Shape shape, const Tiles& tiles, const Activations& a,
                                 const Totals& totals) {
  if constexpr (R > 1) {
    if (a.rows < R) return multiply_kind<Kind, kOffsets, R - 1, T>(shape, tiles, a, totals);
  }
  int t = 0;
  // From memory one stream is twice as fast as two (Zen 5: 29 to 34 GB/s of a core, and 14).
  for (; tiles.rest == 0 && t + T <= tiles.count; t += T) {
    multiply_rows<Kind, kOffsets, R, T>(shape, tiles.from(t), a, totals.from(t));
  }
  for (; t < tiles.count; ++t) {
    multiply_rows<Kind, kOffsets, R, 1>(shape, tiles.from(t), a, totals.from(t));
  }
}

template <class Kind, int R, int T>
static inline void multiply_either(Shape shape, const Tiles& tiles, const Activations& a,
                                   const Totals& totals) {
  if (shape.offsets) {
    multiply_kind<Kind, true, R, T>(shape, tiles, a, totals);
  } else {
    multiply_kind<Kind, false, R, T>(shape, tiles, a, totals);
  }
}

template <class Four, class Floats, class Seven, class EightBits, int R, int T>
static inline void multiply_any(Shape shape, const Tiles& tiles, const Activations& a,
                                const Totals& totals) {
  if (shape.bits == 7) {
    multiply_kind<Seven, false, R, T>(shape, tiles, a, totals);
  } else if (shape.bits == 8) {
    multiply_either<EightBits, R, T>(shape, tiles, a, totals);
  } else if (shape.floats) {
    multiply_kind<Floats, false, R, T>(shape, tiles, a, totals);
  } else {
    multiply_either<Four, R, T>(shape, tiles, a, totals);
  }
}

}  // namespace lepton
