// Sixteen floats of AVX-512, by the names of lanes.h. Where LEPTON_EMULATES_AVX512 is defined they are
// two of AVX2: kernels built on them are then tested on any processor.
#pragma once
#include "lanes.h"

namespace lepton {
namespace {

#if defined(LEPTON_EMULATES_AVX512)

struct Sixteen {
  static constexpr int kLanes = 16;
  Eight low, high;

  static Sixteen all(float x) { return {Eight::all(x), Eight::all(x)}; }
  static Sixteen load(const float* p) { return {Eight::load(p), Eight::load(p + 8)}; }
  static Sixteen load(const uint16_t* p) { return {Eight::load(p), Eight::load(p + 8)}; }
  static Sixteen load(const int8_t* p) { return {Eight::load(p), Eight::load(p + 8)}; }
  void store(float* p) const {
    low.store(p);
    high.store(p + 8);
  }
};

inline Sixteen operator+(Sixteen a, Sixteen b) { return {a.low + b.low, a.high + b.high}; }
inline Sixteen operator-(Sixteen a, Sixteen b) { return {a.low - b.low, a.high - b.high}; }
inline Sixteen operator*(Sixteen a, Sixteen b) { return {a.low * b.low, a.high * b.high}; }
inline Sixteen operator/(Sixteen a, Sixteen b) { return {a.low / b.low, a.high / b.high}; }

inline Sixteen fused(Sixteen a, Sixteen b, Sixteen c) {
  return {fused(a.low, b.low, c.low), fused(a.high, b.high, c.high)};
}
inline Sixteen minus_product(Sixteen c, Sixteen a, Sixteen b) {
  return {minus_product(c.low, a.low, b.low), minus_product(c.high, a.high, b.high)};
}
inline Sixteen least(Sixteen a, Sixteen b) { return {least(a.low, b.low), least(a.high, b.high)}; }
inline Sixteen most(Sixteen a, Sixteen b) { return {most(a.low, b.low), most(a.high, b.high)}; }
inline Sixteen nearest(Sixteen x) { return {nearest(x.low), nearest(x.high)}; }
inline Sixteen power_of_two(Sixteen n) { return {power_of_two(n.low), power_of_two(n.high)}; }
inline Sixteen zero_below(Sixteen x, float limit, Sixteen y) {
  return {zero_below(x.low, limit, y.low), zero_below(x.high, limit, y.high)};
}
inline Sixteen zero_at(Sixteen x, float value, Sixteen y) {
  return {zero_at(x.low, value, y.low), zero_at(x.high, value, y.high)};
}
inline Sixteen magnitude(Sixteen x) { return {magnitude(x.low), magnitude(x.high)}; }

inline Sixteen most_or_nan(Sixteen a, Sixteen b) {
  return {most_or_nan(a.low, b.low), most_or_nan(a.high, b.high)};
}
inline __m256i store_bytes(Sixteen x, int8_t* to, int step) {
  const __m256i low = store_bytes(x.low, to, step);
  return _mm256_add_epi32(low, store_bytes(x.high, to + 2 * step, step));
}

inline Eight low_half(Sixteen x) { return x.low; }
inline Eight high_half(Sixteen x) { return x.high; }

#else

struct Sixteen {
  static constexpr int kLanes = 16;
  __m512 v;

  static Sixteen all(float x) { return {_mm512_set1_ps(x)}; }
  static Sixteen load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Sixteen load(const uint16_t* halves) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)))};
  }
  static Sixteen load(const int8_t* bytes) {
    const __m128i sixteen = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen))};
  }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
};

inline Sixteen operator+(Sixteen a, Sixteen b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Sixteen operator-(Sixteen a, Sixteen b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Sixteen operator*(Sixteen a, Sixteen b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Sixteen operator/(Sixteen a, Sixteen b) { return {_mm512_div_ps(a.v, b.v)}; }

inline Sixteen fused(Sixteen a, Sixteen b, Sixteen c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline Sixteen minus_product(Sixteen c, Sixteen a, Sixteen b) {
  return {_mm512_fnmadd_ps(a.v, b.v, c.v)};
}
inline Sixteen least(Sixteen a, Sixteen b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Sixteen most(Sixteen a, Sixteen b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Sixteen nearest(Sixteen x) {
  return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Sixteen power_of_two(Sixteen n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
inline Sixteen zero_below(Sixteen x, float limit, Sixteen y) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ), y.v)};
}
inline Sixteen zero_at(Sixteen x, float value, Sixteen y) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(value), _CMP_NEQ_UQ), y.v)};
}
inline Sixteen magnitude(Sixteen x) { return {_mm512_abs_ps(x.v)}; }

inline Sixteen most_or_nan(Sixteen a, Sixteen b) {
  return {_mm512_castsi512_ps(
      _mm512_max_epi32(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v)))};
}
inline __m256i both_halves(__m512i x) {
  return _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
}
template <int kSize>
inline void store_fours(const int8_t (&bytes)[kSize], int8_t* to, int step) {
#pragma GCC unroll 8
  for (int i = 0; i < kSize / 4; ++i) __builtin_memcpy(to + i * step, bytes + 4 * i, 4);
}
inline __m256i store_bytes(Sixteen x, int8_t* to, int step) {
  const __m512i wide = _mm512_cvtps_epi32(x.v);
  alignas(16) int8_t bytes[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(bytes), _mm512_cvtsepi32_epi8(wide));
  store_fours(bytes, to, step);
  return both_halves(wide);
}

inline Eight low_half(Sixteen x) { return {_mm512_castps512_ps256(x.v)}; }
inline Eight high_half(Sixteen x) {
  return {_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x.v), 1))};
}

#endif

inline void keep(Sixteen&) {}

// In the order in which eight lanes would have it, so that all processors get the same bits.
inline void add_to(Eight& total, Sixteen x) { total = total + low_half(x) + high_half(x); }

inline Eight eight_of(const Sixteen (&x)[1]) { return low_half(x[0]) + high_half(x[0]); }

inline float largest(Sixteen x) { return largest(most(low_half(x), high_half(x))); }

inline float largest_or_nan(Sixteen x) {
  return largest_or_nan(most_or_nan(low_half(x), high_half(x)));
}

}  // namespace
}  // namespace lepton
