// The loop over a tile that the kernels of all processors share. What differs is a kind of numbers:
//
//   kDepth   how much of a dot product a step takes
//   kBytes   of the tile, in a step
//   kSteps   that are written out one after the other
//   Read     the weights of a step, made from their bytes
//   Sum      of products of one row and the 16 columns, in integers; made from its start, with
//            add(weights, activations, distance of the next 4 bytes of the same row)
//   Scales   of a group, or its offsets, made from their kBytes
//   Total    of one row and the 16 columns, in fp32, or a part of it; begin(sum, scale of the
//            activations), add(the same), add(part, scales), shift(offsets, sum of the
//            activations), load(from), store(to)
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

constexpr size_t kAhead = 8192;  // 1 KB is worse than nothing

// Have what is read a while later come from memory: processors foresee a stream within a page alone.
// Inside of its caller, for GCC leaves out calls of a function that does nothing but this.
__attribute__((always_inline)) static inline void call_for(const uint8_t* packed, size_t bytes,
                                                           const uint8_t* end) {
  if (packed + kAhead >= end) return;
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(packed + kAhead + i);
}

// What is read of tiles and rows, each a little further from block to block.
struct Stream {
  const uint8_t* packed;
  ptrdiff_t apart;  // of two tiles
  const uint8_t* end;
  const uint8_t* x;
  const float* scale;
  const int32_t* start;

  Stream(const Tiles& tiles, const Activations& a)
      : packed(tiles.first),
        apart(tiles.apart),
        end(tiles.first + tiles.rest),
        x(static_cast<const uint8_t*>(a.numbers)),
        scale(a.scale),
        start(a.start) {}
};

template <class Kind, int R, int T>
static inline void add_step(typename Kind::Sum (&sum)[T][R], Stream& from) {
  const Each<typename Kind::Read, T> weights(from.packed, from.apart);
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
    for (int t = 0; t < T; ++t) sum[t][m].add(weights[t], from.x + 4 * m, 4 * R);
  }
  from.packed += Kind::kBytes;
  from.x += Kind::kDepth * R;
}

// The sums of a block, times the scales of its activations: what parts begin with, or more of them. A block has
// kLength products, or where that is 0 `length`, a multiple of 8.
template <class Kind, int kLength, bool kBegins, int R, int T>
static inline void add_block(typename Kind::Total (&part)[T][R], int length, Stream& from) {
  constexpr int kMost = Kind::kSteps * Kind::kDepth;
  constexpr int kChunk = kLength == 0 ? 8 : kLength < kMost ? kLength : kMost;
  const int all = kLength == 0 ? length : kLength;
  if constexpr (T == 1) call_for(from.packed, all / Kind::kDepth * Kind::kBytes, from.end);
  typename Kind::Sum sum[T][R];
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
    for (int t = 0; t < T; ++t) sum[t][m] = typename Kind::Sum(from.start[m]);
  }
  for (int k = 0; k < all; k += kChunk) {
#pragma GCC unroll 16
    for (int i = 0; i < kChunk; i += Kind::kDepth) add_step<Kind, R, T>(sum, from);
  }
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
    for (int t = 0; t < T; ++t) {
      if constexpr (kBegins) part[t][m].begin(sum[t][m], from.scale[m]);
      if constexpr (!kBegins) part[t][m].add(sum[t][m], from.scale[m]);
    }
  }
  from.scale += R;
  from.start += R;
}

// Parts, one for a group, get the scales of the weights and are added up to totals. Registers hold the sums of
// a block and one of the two: totals, where a group is one block (kOne), else parts, and totals are in memory.
// kLength is that of add_block.
template <class Kind, int kLength, bool kOne, bool kOffsets, int R, int T>
static inline void multiply_rows(Shape shape, const Tiles& tiles, const Activations& a,
                                 const Totals& totals) {
  Stream from(tiles, a);
  typename Kind::Total total[T][R];
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
    for (int t = 0; t < T; ++t) total[t][m].load(tiles.bias + t * kTile);
  }
  const float* shift = a.shift;
  const int length = shape.activation_block();
  for (int g = 0; g < shape.inner; g += shape.group) {
    const uint8_t* const head = from.packed;
    from.packed += (kOffsets ? 2 : 1) * Kind::Scales::kBytes;
    typename Kind::Total part[T][R];
    add_block<Kind, kLength, true, R, T>(part, length, from);
    for (int b = length; !kOne && b < shape.group; b += length) {
      add_block<Kind, kLength, false, R, T>(part, length, from);
    }
    // Read behind the products, which leave no registers. Without offsets the second is of integers, and unused.
    const Each<typename Kind::Scales, T> scales(head, from.apart);
    const Each<typename Kind::Scales, T> offsets(head + Kind::Scales::kBytes, from.apart);
#pragma GCC unroll 8
    for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t) {
        if constexpr (!kOne) total[t][m].load(g == 0 ? tiles.bias + t * kTile : totals.at(t, m));
        total[t][m].add(part[t][m], scales[t]);
        if constexpr (kOffsets) total[t][m].shift(offsets[t], shift[m]);
        if constexpr (!kOne) total[t][m].store(totals.at(t, m));
      }
    }
    if constexpr (kOffsets) shift += R;
  }
  if constexpr (kOne) {
#pragma GCC unroll 8
    for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t) total[t][m].store(totals.at(t, m));
    }
  }
}

// Dispatch on the number of rows, R at most; T tiles at once.
template <class Kind, int kLength, bool kOne, bool kOffsets, int R, int T>
static inline void multiply_kind(Shape shape, const Tiles& tiles, const Activations& a,
                                 const Totals& totals) {
  if constexpr (R > 1) {
    if (a.rows < R) {
      return multiply_kind<Kind, kLength, kOne, kOffsets, R - 1, T>(shape, tiles, a, totals);
    }
  }
  int t = 0;
  // From memory one stream is twice as fast as two (Zen 5: 29 to 34 GB/s of a core, and 14).
  for (; tiles.rest == 0 && t + T <= tiles.count; t += T) {
    multiply_rows<Kind, kLength, kOne, kOffsets, R, T>(shape, tiles.from(t), a, totals.from(t));
  }
  for (; t < tiles.count; ++t) {
    multiply_rows<Kind, kLength, kOne, kOffsets, R, 1>(shape, tiles.from(t), a, totals.from(t));
  }
}

// Groups that have no offsets.
template <class Kind, int kLength, int R, int T>
static inline void multiply_plain(Shape shape, const Tiles& tiles, const Activations& a,
                                  const Totals& totals) {
  if (shape.one_block()) {
    multiply_kind<Kind, kLength, true, false, R, T>(shape, tiles, a, totals);
  } else {
    multiply_kind<Kind, kLength, false, false, R, T>(shape, tiles, a, totals);
  }
}

template <class Kind, int kLength, int R, int T>
static inline void multiply_either(Shape shape, const Tiles& tiles, const Activations& a,
                                   const Totals& totals) {
  if (shape.offsets) {
    multiply_kind<Kind, kLength, false, true, R, T>(shape, tiles, a, totals);
  } else {
    multiply_plain<Kind, kLength, R, T>(shape, tiles, a, totals);
  }
}

// Known at compile time are the lengths of blocks that most layers have. Of 7 bits a group is one.
template <class Four, class Floats, class Seven, class EightBits, int R, int T>
static inline void multiply_any(Shape shape, const Tiles& tiles, const Activations& a,
                                const Totals& totals) {
  const int length = shape.activation_block();
  if (shape.bits == 4 && shape.floats) {
    multiply_plain<Floats, kBlock, R, T>(shape, tiles, a, totals);
  } else if (shape.bits == 4) {
    multiply_either<Four, kBlock, R, T>(shape, tiles, a, totals);
  } else if (shape.bits == 7 && length == kLongBlock) {
    multiply_kind<Seven, kLongBlock, true, false, R, T>(shape, tiles, a, totals);
  } else if (shape.bits == 7) {
    multiply_kind<Seven, 0, true, false, R, T>(shape, tiles, a, totals);
  } else if (length == kBlock) {
    multiply_either<EightBits, kBlock, R, T>(shape, tiles, a, totals);
  } else {
    multiply_either<EightBits, 0, R, T>(shape, tiles, a, totals);
  }
}

}  // namespace lepton
