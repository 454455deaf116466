// Functions of floats, of as many lanes as there are.
#pragma once
#include "lanes.h"

namespace lepton {

// Eight floats in memory.
struct Whole {
  static __m256 load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, __m256 v) { _mm256_storeu_ps(p, v); }
};

// The first few of eight; the others are not touched, and zero.
struct Ragged {
  __m256i mask;

  explicit Ragged(int64_t count)
      : mask(_mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)),
                                _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))) {}
  __m256 load(const float* p) const { return _mm256_maskload_ps(p, mask); }
  void store(float* p, __m256 v) const { _mm256_maskstore_ps(p, mask, v); }
};

// The largest of so many. NaN is above all, which the processor's maximum of floats would drop.
template <class Lanes>
static inline float largest_magnitude(const float* x, int count) {
  Lanes widest = Lanes::all(0.0f);
  int i = 0;
  for (; i + Lanes::kLanes <= count; i += Lanes::kLanes) {
    widest = most_or_nan(widest, magnitude(Lanes::load(x + i)));
  }
  if (i == count) return largest_or_nan(widest);
  float rest[Lanes::kLanes] = {};
  __builtin_memcpy(rest, x + i, (count - i) * sizeof(float));
  return largest_or_nan(most_or_nan(widest, magnitude(Lanes::load(rest))));
}

// e^x to 2 units in the last place, 0 below -87, NaN of NaN (the second operand is what a minimum of
// no number gives): a power of two times a polynomial on half a binary digit (coefficients: Cephes,
// expf).
template <class Lanes>
static inline Lanes exponential(Lanes x) {
  x = least(Lanes::all(88.37f), x);
  const Lanes n = nearest(x * Lanes::all(1.44269504f));
  Lanes r = minus_product(x, n, Lanes::all(0.693359375f));
  r = minus_product(r, n, Lanes::all(-2.12194440e-4f));
  Lanes p = Lanes::all(1.9875691500e-4f);
  p = fused(p, r, Lanes::all(1.3981999507e-3f));
  p = fused(p, r, Lanes::all(8.3334519073e-3f));
  p = fused(p, r, Lanes::all(4.1665795894e-2f));
  p = fused(p, r, Lanes::all(1.6666665459e-1f));
  p = fused(p, r, Lanes::all(5.0000001201e-1f));
  p = fused(r * r, p, r + Lanes::all(1.0f));
  return zero_below(x, -87.33f, p * power_of_two(n));
}

// 1 / (1 + e^-x)
template <class Lanes>
static inline Lanes sigmoid(Lanes x) {
  const Lanes one = Lanes::all(1.0f);
  return one / (one + exponential(Lanes::all(0.0f) - x));
}

// tanh x = 2 sigmoid(2 x) - 1
template <class Lanes>
static inline Lanes hyperbolic_tangent(Lanes x) {
  const Lanes s = sigmoid(x + x);
  return s + s - Lanes::all(1.0f);
}

// erf x within 1.5e-7 (Abramowitz and Stegun, 7.1.26)
template <class Lanes>
static inline Lanes error_function(Lanes x) {
  const Lanes one = Lanes::all(1.0f), a = magnitude(x);
  const Lanes t = one / fused(a, Lanes::all(0.3275911f), one);
  Lanes p = Lanes::all(1.061405429f);
  p = fused(p, t, Lanes::all(-1.453152027f));
  p = fused(p, t, Lanes::all(1.421413741f));
  p = fused(p, t, Lanes::all(-0.284496736f));
  p = fused(p, t, Lanes::all(0.254829592f));
  return with_sign(minus_product(one, p * t, exponential(Lanes::all(0.0f) - a * a)), x);
}

}  // namespace lepton
