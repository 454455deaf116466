// Few rows, a decode step: keys and values are read once, as they lie, and mostly come from memory.
#pragma once
#include "../../toolchain/csrc/vector.h"
#include "form.h"

namespace lepton {
namespace {

constexpr int64_t kAhead = 8192, kLine = 64;  // bytes: 8 KB are read until memory answers
constexpr int kFour = 4;  // keys that are added up together

// Have a row come that is read a while later: processors foresee a stream within a page alone. It comes
// to the second cache: to the first it takes longer than without (Zen 4: 28 layers of 8 heads over 2,000
// keys of 128 take 26 ms so, 34 without and 45 to the first). Inside of its caller, for GCC leaves out
// calls of a function that does nothing but this.
template <class T>
__attribute__((always_inline)) inline void call_for(const T* row, int64_t apart, int width) {
  constexpr int64_t kOfLine = kLine / sizeof(T), kNumbers = kAhead / sizeof(T);
  const T* later = row + (kNumbers + width - 1) / width * apart;
  for (int64_t d = 0; d < width; d += kOfLine) __builtin_prefetch(later + d, 0, 2);
}

// Products of R rows and J keys, each added up in 16 lanes and these in 8, with what a multiple of 8 leaves:
// that of row m and key j is sums[kFour * m + j].
template <class Lanes, int R, int J, class T>
inline void dots(int width, const float* query, const MatrixOf<T>& keys, Eight* sums) {
  constexpr int kSums = 16 / Lanes::kLanes;
  Lanes part[R][J][kSums];
#pragma GCC unroll 4
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
#pragma GCC unroll 2
      for (int s = 0; s < kSums; ++s) part[m][j][s] = Lanes::all(0.0f);
    }
  }
  int d = 0;
  for (; d + 16 <= width; d += 16) {
#pragma GCC unroll 2
    for (int s = 0; s < kSums; ++s) {
      const int at = d + s * Lanes::kLanes;
      Lanes key[J];
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) key[j] = Lanes::load(keys.first + j * keys.row + at);
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) {
        const Lanes some = Lanes::load(query + m * width + at);
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) part[m][j][s] = fused(some, key[j], part[m][j][s]);
      }
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) {
      Eight all = eight_of(part[m][j]);
      if (d < width) {
        all = all + Eight::load(query + m * width + d) * Eight::load(keys.first + j * keys.row + d);
      }
      sums[kFour * m + j] = all;
    }
  }
}

template <int R>
struct Count {
  static constexpr int value = R;
};

// step(Count<R>, m) for rows from m on, R at a time. Returns the first that is left.
template <int R, class Step>
inline int by(int m, int rows, const Step& step) {
  for (; m + R <= rows; m += R) step(Count<R>{}, m);
  return m;
}

// As many rows at a time as have registers, R at most, then two, then one.
template <int R, class Step>
inline void all_rows(int rows, const Step& step) {
  by<1>(by<2>(by<R>(0, rows, step), rows, step), rows, step);
}

// Scores of R rows and up to four keys, as many of these at once as there are registers for.
// `products(Count<J>, j, sums)` adds up those of J keys, from key j on; `worth(m, x)` is x in units of
// row m.
template <class Lanes, int R, class Products, class Worth>
inline void scores_of(int count, float* scores, const Products& products, const Worth& worth) {
  constexpr int kAtOnce = Lanes::kLanes == 16 ? kFour : kFour / R;
  Eight sums[R * kFour];
  if (count < kFour) {
    for (int j = 0; j < count; ++j) {
      products(Count<1>{}, j, sums);
      for (int m = 0; m < R; ++m) scores[m * kKeys + j] = worth(m, sum(sums[kFour * m]));
    }
    return;
  }
#pragma GCC unroll 4
  for (int j = 0; j < kFour; j += kAtOnce) products(Count<kAtOnce>{}, j, sums + j);
#pragma GCC unroll 4
  for (int m = 0; m < R; ++m) {
    const Eight* four = sums + kFour * m;
    _mm_storeu_ps(scores + m * kKeys, worth(m, sums_of(four[0], four[1], four[2], four[3])));
  }
}

// step(j, count, four keys or values from j on), `numbers` in a row, which are called for ahead.
template <class T, class Step>
inline void by_fours(int keys, int numbers, const MatrixOf<T>& all, const Step& step) {
  for (int j = 0; j < keys; j += kFour) {
    const int count = keys - j < kFour ? keys - j : kFour;
    const MatrixOf<T> four = all.from(j);
    for (int k = 0; k < count; ++k) call_for(four.first + k * four.row, four.row, numbers);
    step(j, count, four);
  }
}

template <class Lanes, class T>
void multiply_few(const Size& size, const float* query, const MatrixOf<T>& keys, float* scores) {
  const int width = size.inner;
  by_fours(size.columns, width, keys, [&](int j, int count, const MatrixOf<T>& four) {
    all_rows<4>(size.rows, [&](auto some, int m) {
      constexpr int kSome = decltype(some)::value;
      const auto products = [&](auto several, int from, Eight* sums) {
        dots<Lanes, kSome, decltype(several)::value>(width, query + m * width, four.from(from), sums);
      };
      scores_of<Lanes, kSome>(count, scores + m * kKeys + j, products, [](int, auto all) { return all; });
    });
  });
}

// Some lanes of four values, from column d on; where there are fewer the others are zero.
template <class Lanes, class T>
inline void read_four(int keys, const MatrixOf<T>& values, int d, Lanes (&v)[4]) {
  for (int k = 0; k < 4; ++k) {
    v[k] = k < keys ? Lanes::load(values.first + k * values.row + d) : Lanes::all(0.0f);
  }
}

template <class Lanes>
inline void add_products(const Lanes (&weight)[4], const Lanes (&v)[4], float* y) {
  Lanes part = Lanes::load(y);
  for (int k = 0; k < 4; ++k) part = fused(weight[k], v[k], part);
  part.store(y);
}

// R rows of total += their weights of four keys . values, from a column on, as long as lanes are whole;
// weights stay in registers. Returns the first column that is left.
template <class Lanes, int R, class T>
inline int add_four(int keys, const Size& size, int from, const float* scores,
                    const MatrixOf<T>& values, float* total) {
  Lanes weight[R][4];
#pragma GCC unroll 4
  for (int m = 0; m < R; ++m) {
    for (int k = 0; k < 4; ++k) weight[m][k] = Lanes::all(scores[m * kKeys + k]);
  }
  int d = from;
  for (; d + Lanes::kLanes <= size.columns; d += Lanes::kLanes) {
    Lanes v[4];
    read_four(keys, values, d, v);
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) add_products(weight[m], v, total + m * size.columns + d);
  }
  return d;
}

template <class Lanes, int R, class T>
inline void add_rows(int keys, const Size& size, const float* scores, const MatrixOf<T>& values,
                     float* total) {
  const int whole = add_four<Lanes, R>(keys, size, 0, scores, values, total);
  if (whole == size.columns) return;
  for (int m = 0; m < R; ++m) {
    add_four<Eight, 1>(keys, size, whole, scores + m * kKeys, values, total + m * size.columns);
  }
}

template <class Lanes, int R, class T>
void add_few(const Size& size, const float* scores, const MatrixOf<T>& values, float* total) {
  by_fours(size.inner, size.columns, values, [&](int j, int keys, const MatrixOf<T>& four) {
    all_rows<R>(size.rows, [&](auto some, int m) {
      constexpr int kSome = decltype(some)::value;
      add_rows<Lanes, kSome>(keys, size, scores + m * kKeys + j, four, total + m * size.columns);
    });
  });
}

}  // namespace
}  // namespace lepton
