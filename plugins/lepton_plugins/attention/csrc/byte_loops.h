// Few rows beside caches of bytes: as few_loops.h. Queries become words of 16 bits, so that products with keys
// are those of integers.
#pragma once
#include "bytes.h"
#include "few_loops.h"

namespace lepton {
namespace {

constexpr int kMostBlocks = kMostBytes / kByteBlock;

// The scales of a row as floats, four at a time, then one by one.
inline void scales_of(const int8_t* row, int width, float* scale) {
  const int blocks = width / kByteBlock;
  int b = 0;
  for (; b + 4 <= blocks; b += 4) {
    const auto* four = reinterpret_cast<const __m128i*>(row + width + 2 * b);
    _mm_storeu_ps(scale + b, _mm_cvtph_ps(_mm_loadl_epi64(four)));
  }
  for (; b < blocks; ++b) scale[b] = scale_of(row, width, b);
}

// Products of R rows and J keys but for the scales of the rows, each added up in 16 lanes and these in 8: that
// of row m and key j is sums[kFour * m + j].
template <class I, int R, int J>
inline void dots(int width, const int16_t* query, const Bytes& keys, Eight* sums) {
  using Lanes = typename I::Lanes;
  constexpr int kSums = 16 / Lanes::kLanes;
  float scale[J][kMostBlocks];
  Lanes part[R][J][kSums];
#pragma GCC unroll 4
  for (int j = 0; j < J; ++j) {
    scales_of(keys.first + j * keys.row, width, scale[j]);
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) {
      for (int s = 0; s < kSums; ++s) part[m][j][s] = Lanes::all(0.0f);
    }
  }
  for (int b = 0; b < width / kByteBlock; ++b) {
#pragma GCC unroll 2
    for (int s = 0; s < kSums; ++s) {
      const int at = b * kByteBlock + s * 2 * Lanes::kLanes;
      typename I::Words key[J];
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) key[j] = I::widened(keys.first + j * keys.row + at);
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) {
        const typename I::Words some = I::words(query + m * width + at);
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) {
          const Lanes pairs = I::floats(I::pairs(some, key[j]));
          part[m][j][s] = fused(pairs, Lanes::all(scale[j][b]), part[m][j][s]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < R; ++m) {
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) sums[kFour * m + j] = eight_of(part[m][j]);
  }
}

inline float times(float x, float scale) { return x * scale; }
inline __m128 times(__m128 x, float scale) { return _mm_mul_ps(x, _mm_set1_ps(scale)); }

template <class I>
void multiply_few_bytes(const Size& size, const int16_t* words, const float* scale, const Bytes& keys,
                        float* scores) {
  const int width = size.inner;
  for (int j = 0; j < size.columns; j += kFour) {
    const int count = size.columns - j < kFour ? size.columns - j : kFour;
    const Bytes four = keys.from(j);
    for (int k = 0; k < count; ++k) call_for(four.first + k * four.row, four.row, row_bytes(width));
    all_rows<4>(size.rows, [&](auto some, int m) {
      constexpr int kSome = decltype(some)::value;
      const auto products = [&](auto several, int from, Eight* sums) {
        dots<I, kSome, decltype(several)::value>(width, words + m * width, four.from(from), sums);
      };
      scores_of<typename I::Lanes, kSome>(count, scores + m * kKeys + j, products,
                                          [&](int i, auto all) { return times(all, scale[m + i]); });
    });
  }
}

// R rows of total += their weights of up to four keys . values.
template <class Lanes, int R>
inline void add_rows(int keys, int width, const float* scores, const Bytes& values,
                     const float (&scale)[kFour][kMostBlocks], float* total) {
  Lanes weight[R][kFour];
#pragma GCC unroll 4
  for (int m = 0; m < R; ++m) {
    for (int k = 0; k < kFour; ++k) {
      weight[m][k] = Lanes::all(k < keys ? scores[m * kKeys + k] : 0.0f);
    }
  }
  for (int d = 0; d < width; d += Lanes::kLanes) {
    Lanes v[kFour];
    for (int k = 0; k < kFour; ++k) {
      const int8_t* value = values.first + (k < keys ? k : 0) * values.row;  // else times 0
      v[k] = Lanes::load(value + d) * Lanes::all(scale[k][d / kByteBlock]);
    }
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) add_products(weight[m], v, total + m * width + d);
  }
}

template <class Lanes>
void add_few_bytes(const Size& size, const float* scores, const Bytes& values, float* total) {
  const int width = size.columns;
  for (int j = 0; j < size.inner; j += kFour) {
    const int keys = size.inner - j < kFour ? size.inner - j : kFour;
    const Bytes four = values.from(j);
    float scale[kFour][kMostBlocks];
    for (int k = 0; k < kFour; ++k) {
      const int8_t* value = four.first + (k < keys ? k : 0) * four.row;  // else times 0
      scales_of(value, width, scale[k]);
      call_for(value, four.row, row_bytes(width));
    }
    all_rows<4>(size.rows, [&](auto some, int m) {
      constexpr int kSome = decltype(some)::value;
      const float* weights = scores + m * kKeys + j;
      add_rows<Lanes, kSome>(keys, width, weights, four, scale, total + m * width);
    });
  }
}

}  // namespace
}  // namespace lepton
