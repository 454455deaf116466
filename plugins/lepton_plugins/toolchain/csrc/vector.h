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

// x p(x^2) / q(x^2), within `limit` both ways, and what it is there beyond; NaN of NaN. Coefficients from
// the highest power down. Those of the functions below have the least largest error (Lawson, 1961), and
// limits are such that the value there is 1 to the last bit.
template <class Lanes, int P, int Q>
static inline Lanes odd_ratio(Lanes x, float limit, const float (&p)[P], const float (&q)[Q]) {
  x = most(Lanes::all(-limit), least(Lanes::all(limit), x));
  const Lanes square = x * x;
  Lanes over = Lanes::all(p[0]), under = Lanes::all(q[0]);
#pragma GCC unroll 8
  for (int i = 1; i < P; ++i) over = fused(over, square, Lanes::all(p[i]));
#pragma GCC unroll 8
  for (int i = 1; i < Q; ++i) under = fused(under, square, Lanes::all(q[i]));
  return x * over / under;
}

// tanh x within 3.4e-7
template <class Lanes>
static inline Lanes hyperbolic_tangent(Lanes x) {
  return odd_ratio(
      x, 8.9f, {1.33630316e-8f, 2.06012664e-5f, 3.49448295e-3f, 1.33798674e-1f, 9.9999994e-1f},
      {7.77592959e-7f, 3.2842785e-4f, 2.5872089e-2f, 4.67131674e-1f, 1.0f});
}

// erf x within 3.2e-7
template <class Lanes>
static inline Lanes error_function(Lanes x) {
  return odd_ratio(x, 3.8f,
                   {2.13214389e-6f, 2.87993258e-4f, 3.69341346e-3f, 5.25467172e-2f,
                    1.88111752e-1f, 1.12837911f},
                   {3.90976529e-5f, 1.15369353e-3f, 1.48225296e-2f, 1.13253035e-1f,
                    5.00041962e-1f, 1.0f});
}

}  // namespace lepton
