// The loops over small integers, of any lanes.
#pragma once
#include "form.h"
#include "integers.h"
#include "rounded.h"

namespace lepton {
namespace {

template <class I, int R, int V>
inline void clear(typename I::Sums (&sums)[R][V]) {
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sums[i][v] = I::none();
  }
}

// y = x . w in words, R rows of V registers, from row m and column c on.
template <class I, int R, int V>
inline void words_block(const RoundedProduct& p, int m, int c) {
  using Lanes = typename I::Lanes;
  const auto* x = static_cast<const int16_t*>(p.x) + m * p.x_row;
  const auto* w = static_cast<const int16_t*>(p.w) + 2 * c;
  typename I::Sums sums[R][V];
  clear<I>(sums);
  for (int k = 0; k < p.inner; k += 2, w += p.w_row) {
    typename I::Words row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) row[v] = I::words(w + 2 * v * Lanes::kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        sums[i][v] = I::add(sums[i][v], row[v], x + i * p.x_row + k);
        I::keep(sums[i][v]);
      }
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    const Lanes scale = Lanes::load(p.w_scale + c + v * Lanes::kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const Lanes both = scale * Lanes::all(p.x_scale[m + i]);
      (I::floats(sums[i][v]) * both).store(p.y + (m + i) * p.y_row + c + v * Lanes::kLanes);
    }
  }
}

// y += x . w in bytes, eight keys at a time.
template <class I, int R, int V>
inline void bytes_block(const RoundedProduct& p, int m, int c) {
  using Lanes = typename I::Lanes;
  const auto* x = static_cast<const uint8_t*>(p.x) + m * p.x_row;
  const auto* w = static_cast<const int8_t*>(p.w) + 4 * c;
  typename I::Sums sums[R][V];
  clear<I>(sums);
  for (int k = 0; k < p.inner; k += 8, w += 2 * p.w_row) {
    typename I::Bytes first[V], second[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      first[v] = I::bytes(w + 4 * v * Lanes::kLanes);
      second[v] = I::bytes(w + p.w_row + 4 * v * Lanes::kLanes);
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        sums[i][v] = I::add(sums[i][v], first[v], second[v], x + i * p.x_row + k);
        I::keep(sums[i][v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    const Lanes scale = Lanes::all(p.x_scale[m + i]);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      float* y = p.y + (m + i) * p.y_row + c + v * Lanes::kLanes;
      fused(I::floats(sums[i][v]), scale, Lanes::load(y)).store(y);
    }
  }
}

// Functions as arguments of templates, which they can only be as classes.
template <class I, int R, int V>
struct WordsBlock {
  static void run(const RoundedProduct& p, int m, int c) { words_block<I, R, V>(p, m, c); }
};
template <class I, int R, int V>
struct BytesBlock {
  static void run(const RoundedProduct& p, int m, int c) { bytes_block<I, R, V>(p, m, c); }
};

template <template <class, int, int> class Block, class I, int R, int V>
inline void rounded_columns(const RoundedProduct& p, int c) {
  int m = 0;
  for (; m + R <= p.rows; m += R) Block<I, R, V>::run(p, m, c);
  for (; m < p.rows; ++m) Block<I, 1, V>::run(p, m, c);
}

template <template <class, int, int> class Block, class I, int R, int V>
void rounded_multiply(const RoundedProduct& p) {
  constexpr int kLanes = I::Lanes::kLanes;
  int c = 0;
  for (; c + V * kLanes <= p.columns; c += V * kLanes) rounded_columns<Block, I, R, V>(p, c);
  for (; c + kLanes <= p.columns; c += kLanes) rounded_columns<Block, I, R, 1>(p, c);
  if (c < p.columns) rounded_columns<Block, EightIntegers, R, 1>(p, c);
}

// Weights times the scales of their values, in place, and the largest of them.
template <class Lanes>
inline Lanes scaled_most(float* s, const float* scale, Lanes most) {
  const Lanes each = Lanes::load(s) * Lanes::load(scale);
  each.store(s);
  return most_or_nan(most, each);
}

template <class Lanes>
float round_weights(float* s, const float* scale, int count, uint8_t* bytes) {
  Lanes widest = Lanes::all(0.0f);
  Eight rest = Eight::all(0.0f);
  int j = 0;
  for (; j + Lanes::kLanes <= count; j += Lanes::kLanes) {
    widest = scaled_most(s + j, scale + j, widest);
  }
  if (j < count) rest = scaled_most(s + j, scale + j, rest);
  rest = most_or_nan(rest, Eight::all(largest_or_nan(widest)));
  const Rounding to = rounding(largest_or_nan(rest), kLevelsOfWeights);
  for (j = 0; j + Lanes::kLanes <= count; j += Lanes::kLanes) {
    store_row(Lanes::load(s + j) * Lanes::all(to.factor), bytes + j);
  }
  if (j < count) store_row(Eight::load(s + j) * Eight::all(to.factor), bytes + j);
  return to.scale;
}

}  // namespace
}  // namespace lepton
