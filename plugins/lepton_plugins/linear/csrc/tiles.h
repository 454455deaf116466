// Inner kernels: a few rows of activations times one tile of 16 packed columns.
//
// A tile is contiguous: for each group of rows of the weight matrix 16 scales in fp16, stored times
// 1024, then the group's integers. Weights of 4 and 8 bits may be integers times a scale plus an
// offset: then 16 offsets follow the scales, in the same form.
//   4 bits   for each 4 rows 32 bytes: byte 4 c + r holds row r of column c in its low half and of
//            column 8 + c in its high half, both plus 8; or the codes of floats (E2M1: a sign and
//            0, 0.5, 1, 1.5, 2, 3, 4 or 6), which count twice
//   7 bits   for each 4 rows 64 bytes: byte 4 c + r holds row r of column c plus 64
//   8 bits   the same, plus 128
// Where a form is faster so, tiles of 4 bits that many rows will pass over are spread first: scales and
// offsets in fp32, times 1, and for each 4 rows 64 bytes, where byte 4 c + r holds row r of column c plus
// 8, of floats plus 12.
//
// Activations are rounded to what lets their products be summed in small integers:
//   4 bits   -127..127, a scale for each 32: 32 products in 8 pairs, 8 * 2 * 12 * 127 < 2^15
//   7 bits   -63..63, a scale for each group: 4 products in 2 pairs, 2 * 2 * 127 * 63 < 2^15
//   8 bits   -127..127, a scale for each 32, or fewer: a pair of products, 2 * 128 * 127 < 2^15
#pragma once
#include <cstddef>
#include <cstdint>

#include "activation.h"

namespace lepton {

constexpr int kTile = 16;      // columns
constexpr int kBlock = 32;     // activations that share a scale, for 4 and 8 bits
constexpr int kLongBlock = 64;  // the same for 7 bits, mostly
constexpr int kMostRows = 6;   // of activations that share a pass over a tile, in any form
constexpr int kMostTiles = 8;  // that a call reads; an even number
constexpr float kScaleUnit = 1.0f / 1024.0f;
constexpr float kLeast = 0x1p-120f;  // of activations: blocks of which all are smaller are zeros

struct Shape {
  int bits;    // 4, 7 or 8
  int inner;   // length of a dot product
  int group;   // how much of it shares a scale of the weights
  bool offsets = false;  // 4 and 8 bits alone
  bool floats = false;   // 4 bits alone, without offsets
  bool spread = false;   // 4 bits alone

  // Of 8 bits a group may be no multiple of a block: then that is the largest power of two that divides it.
  constexpr int activation_block() const {
    if (bits == 7) return group;
    return group % kBlock == 0 ? kBlock : group & -group;
  }
  // Whether a group is one block and no more: its totals are then added to once, and stay in registers.
  constexpr bool one_block() const { return group == activation_block() && !offsets; }
  // What weights are stored, or read, more than they are.
  constexpr int middle() const { return bits == 4 ? (floats ? 12 : 8) : bits == 7 ? 64 : 128; }
  constexpr int blocks() const { return inner / activation_block(); }
  constexpr int groups() const { return inner / group; }
  constexpr size_t scales_bytes() const { return (spread ? 4 : 2) * kTile; }  // of a group
  constexpr size_t head_bytes() const { return (offsets ? 2 : 1) * scales_bytes(); }
  constexpr size_t group_bytes() const {
    const bool halves = bits == 4 && !spread;
    return head_bytes() + static_cast<size_t>(group) * kTile / (halves ? 2 : 1);
  }
  constexpr size_t tile_bytes() const { return groups() * group_bytes(); }
};

// Tiles in the order in which they are read, some of them two at once, for which a row of activations is
// read once: those of a pair lie `apart`, pairs follow each other by `next` bytes.
struct Tiles {
  const uint8_t* first;
  ptrdiff_t apart, next;
  int count;          // kMostTiles at most
  const float* bias;  // (count, 16): what sums begin with
  size_t rest;        // bytes from the first on that come from memory, one tile at a time; or 0

  Tiles from(int t) const {
    const size_t left = rest == 0 ? 0 : rest - t / 2 * next;
    return {first + t / 2 * next + t % 2 * apart, apart, next, count - t, bias + t * kTile, left};
  }
};

// Activations of a few rows, interleaved: 4 bytes of each row in turn. So are `scale` and `start`:
// one number for each block and row, of which `start` is what a sum of products begins with so that
// the middle of the stored weights cancels: for a form that sums 4 bits in 16 (`Form::halves`) in two
// halves, of which the lower is for the first two of each four rows. `shift`, of
// which there is one for each group and row, is the sum of the activations as they were rounded: what
// offsets are multiplied by.
struct Activations {
  int rows;
  const void* numbers;
  const float* scale;
  const int32_t* start;
  const float* shift;  // or null, where there are no offsets
};

// Where products of rows and tiles go, 16 numbers of each, those of a row one behind the other.
struct Totals {
  float* first;
  ptrdiff_t row;  // floats from one row to the next

  float* at(int t, int m) const { return first + t * kTile + m * row; }
  Totals from(int t) const { return {at(t, 0), row}; }
};

// y[m * stride + c] for m below `rows` and c below `columns`.
struct Corner {
  float* y;
  ptrdiff_t stride;
  int rows, columns;
};

// Where a row goes, among `rows` interleaved ones: the pointers are at its first number.
struct Place {
  int rows;
  int8_t* numbers;
  float* scale;
  int32_t* start;
  float* shift;  // or null
  bool halves;   // of `start`, for 4 bits
};

// The kernels of one kind of processor. All kinds give the same numbers to the last bit.
struct Form {
  int rows;     // of activations, at most
  bool halves;  // sums of 4 bits are two of 16 bits each, until a block ends
  bool spreads;  // tiles of 4 bits are worth spreading, for many rows
  // One row, x (inner), rounded. With an `order` (inner), of 4 bits alone, number i is x[order[i]].
  void (*quantize_row)(Shape shape, const float* x, const int32_t* order, const Place& to);
  // totals = bias + a . tile
  void (*multiply)(Shape shape, const Tiles& tiles, const Activations& a, const Totals& totals);
  // y = activation(totals)
  void (*finish)(const Totals& totals, Activation activation, const Corner& to);
  // y = activation(gate) * let, or what another kind of gate makes of the two; tiles in turn
  void (*finish_gated)(const Totals& totals, Activation activation, const Gate& kind,
                       const Corner& to);
};

// Twice the floats of 4 bits, plus their middle, by their codes.
alignas(16) constexpr uint8_t kFloats[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                             12, 11, 10, 9,  8,  6,  4,  0};

// A tile of 4 bits, spread.
void spread_tile(Shape packed, const uint8_t* tile, uint8_t* to);

Form avx2_form();
Form avx512_form();  // with VNNI

// That of this processor.
Form form();

}  // namespace lepton
