// The loops of a form, over any lanes. What a multiple of 8 leaves behind whole lanes is one Eight.
#pragma once
#include "../../toolchain/csrc/vector.h"
#include "byte_loops.h"
#include "few_loops.h"
#include "form.h"
#include "rounded_loops.h"

namespace lepton {
namespace {

// y (R, V lanes) (+)= x (R, inner) . w (inner, V lanes); x by broadcasts.
template <class Lanes, int R, int V>
inline void multiply_block(int inner, const float* x, int64_t x_row, const float* w, int64_t w_row,
                           bool add, float* y, int64_t y_row) {
  Lanes total[R][V];
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      total[m][v] = add ? Lanes::load(y + m * y_row + v * Lanes::kLanes) : Lanes::all(0.0f);
    }
  }
  for (int k = 0; k < inner; ++k) {
    Lanes row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) row[v] = Lanes::load(w + k * w_row + v * Lanes::kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < R; ++m) {
      const Lanes one = Lanes::all(x[m * x_row + k]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        total[m][v] = fused(one, row[v], total[m][v]);
        keep(total[m][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) total[m][v].store(y + m * y_row + v * Lanes::kLanes);
  }
}

// All rows of V lanes, from column c on.
template <class Lanes, int R, int V>
inline void multiply_columns(const Size& size, const Matrix& x, const Matrix& w, int c, bool add,
                             float* y, int64_t y_row) {
  int m = 0;
  for (; m + R <= size.rows; m += R) {
    multiply_block<Lanes, R, V>(size.inner, x.first + m * x.row, x.row, w.first + c, w.row, add,
                                y + m * y_row + c, y_row);
  }
  for (; m + 4 <= size.rows; m += 4) {
    multiply_block<Lanes, 4, V>(size.inner, x.first + m * x.row, x.row, w.first + c, w.row, add,
                                y + m * y_row + c, y_row);
  }
  for (; m < size.rows; ++m) {
    multiply_block<Lanes, 1, V>(size.inner, x.first + m * x.row, x.row, w.first + c, w.row, add,
                                y + m * y_row + c, y_row);
  }
}

template <class Lanes, int R>
void multiply(const Size& size, const Matrix& x, const Matrix& w, bool add, float* y,
              int64_t y_row) {
  constexpr int kLanes = Lanes::kLanes;
  int c = 0;
  for (; c + 2 * kLanes <= size.columns; c += 2 * kLanes) {
    multiply_columns<Lanes, R, 2>(size, x, w, c, add, y, y_row);
  }
  for (; c + kLanes <= size.columns; c += kLanes) {
    multiply_columns<Lanes, R, 1>(size, x, w, c, add, y, y_row);
  }
  if (c < size.columns) multiply_columns<Eight, R, 1>(size, x, w, c, add, y, y_row);
}

template <class Lanes>
inline void soften_lanes(float cap, float* s) {
  (Lanes::all(cap) * hyperbolic_tangent(Lanes::load(s) * Lanes::all(1 / cap))).store(s);
}

template <class Lanes>
void soften(float cap, int count, float* s) {
  int j = 0;
  for (; j + Lanes::kLanes <= count; j += Lanes::kLanes) soften_lanes<Lanes>(cap, s + j);
  if (j < count) soften_lanes<Eight>(cap, s + j);
}

template <class Lanes>
inline float largest_score(const float* s, int count) {
  Lanes widest = Lanes::all(kNone);
  int j = 0;
  for (; j + Lanes::kLanes <= count; j += Lanes::kLanes) widest = most(widest, Lanes::load(s + j));
  const float most_of_whole = largest(widest);
  if (j == count) return most_of_whole;
  const float rest = largest(Eight::load(s + j));
  return most_of_whole > rest ? most_of_whole : rest;
}

// Whether none is NaN, which a maximum passes over.
inline bool all_numbers(const float* s, int count) {
  bool all = true;
  for (int j = 0; j < count; j += 8) all = all && all_numbers(Eight::load(s + j));
  return all;
}

template <class Lanes>
inline void weigh_lanes(float* s, float maximum, Eight& total) {
  const Lanes score = Lanes::load(s);
  const Lanes weight = zero_at(score, kNone, exponential(score - Lanes::all(maximum)));
  weight.store(s);
  add_to(total, weight);
}

// Weights of one row; returns their sum.
template <class Lanes>
inline float weigh_row(float* s, int count, float maximum) {
  if (maximum == kNone && all_numbers(s, count)) {
    for (int j = 0; j < count; ++j) s[j] = 0.0f;
    return 0.0f;
  }
  Eight total = Eight::all(0.0f);
  int j = 0;
  for (; j + Lanes::kLanes <= count; j += Lanes::kLanes) weigh_lanes<Lanes>(s + j, maximum, total);
  if (j < count) weigh_lanes<Eight>(s + j, maximum, total);
  return sum(total);
}

template <class Lanes>
void weigh(const Scores& scores) {
  for (int first = 0; first < scores.rows; first += 8) {
    const int end = first + 8 < scores.rows ? first + 8 : scores.rows;
    float less[8] = {}, added[8] = {};
    // Two loops: no row waits for what the one before it is summed to.
    for (int i = first; i < end; ++i) {
      const float here = largest_score<Lanes>(scores.first + i * kKeys, scores.count);
      const float before = scores.maximum[i], now = before > here ? before : here;
      less[i - first] = before == kNone ? kNone : before - now;
      scores.maximum[i] = now;
    }
    for (int i = first; i < end; ++i) {
      float* s = scores.first + i * kKeys;
      added[i - first] = weigh_row<Lanes>(s, scores.count, scores.maximum[i]);
    }
    const Eight factor = exponential(Eight::load(less));
    factor.store(scores.factor + first);
    (Eight::load(scores.sum + first) * factor + Eight::load(added)).store(scores.sum + first);
  }
}

// R rows of two registers at a time; of bytes BytesR rows of BytesV.
template <class Integers, int R, int BytesR, int BytesV>
AttentionForm form_of() {
  using Lanes = typename Integers::Lanes;
  return {multiply<Lanes, R>,
          multiply_few<Lanes, float>,
          multiply_few<Lanes, uint16_t>,
          multiply_few_bytes<Integers>,
          add_few<Lanes, Lanes::kLanes / 4, float>,
          add_few<Lanes, Lanes::kLanes / 4, uint16_t>,
          add_few_bytes<Lanes>,
          soften<Lanes>,
          weigh<Lanes>,
          rounded_multiply<WordsBlock, Integers, R, 2>,
          rounded_multiply<BytesBlock, Integers, BytesR, BytesV>,
          round_weights<Lanes>};
}

}  // namespace
}  // namespace lepton
