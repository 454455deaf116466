// Eight floats of AVX2, by the names that kernels for any width are written in. Each source file has
// its own: the linker must not take for all what was compiled for AVX-512.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace lepton {
namespace {

struct Eight {
  static constexpr int kLanes = 8;
  __m256 v;

  static Eight all(float x) { return {_mm256_set1_ps(x)}; }
  static Eight load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Eight load(const uint16_t* halves) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)))};
  }
  static Eight load(const int8_t* bytes) {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight))};
  }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
};

inline Eight operator+(Eight a, Eight b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Eight operator-(Eight a, Eight b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Eight operator*(Eight a, Eight b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Eight operator/(Eight a, Eight b) { return {_mm256_div_ps(a.v, b.v)}; }

// a * b + c, and c - a * b, rounded once.
inline Eight fused(Eight a, Eight b, Eight c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Eight minus_product(Eight c, Eight a, Eight b) {
  return {_mm256_fnmadd_ps(a.v, b.v, c.v)};
}

// Of NaN and a number, the second.
inline Eight least(Eight a, Eight b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Eight most(Eight a, Eight b) { return {_mm256_max_ps(a.v, b.v)}; }

inline Eight nearest(Eight x) {
  return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

// 2^n of whole numbers from -126 to 127
inline Eight power_of_two(Eight n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))};
}

// y, but 0 where x is below `limit`, or where it is `value`.
inline Eight zero_below(Eight x, float limit, Eight y) {
  return {_mm256_andnot_ps(_mm256_cmp_ps(x.v, _mm256_set1_ps(limit), _CMP_LT_OQ), y.v)};
}
inline Eight zero_at(Eight x, float value, Eight y) {
  return {_mm256_andnot_ps(_mm256_cmp_ps(x.v, _mm256_set1_ps(value), _CMP_EQ_OQ), y.v)};
}

inline Eight magnitude(Eight x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v)}; }

// Compilers would broadcast all factors of a sum first, and then have no registers left.
inline void keep(Eight& x) { asm volatile("" : "+x"(x.v)); }

// The lanes of `total`, plus those of x.
inline void add_to(Eight& total, Eight x) { total = total + x; }

inline float largest(Eight x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

inline float sum(Eight x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

// The sums of four, each added up in the order of `sum`.
inline __m128 sums_of(Eight a, Eight b, Eight c, Eight d) {
  const auto half = [](Eight x) {
    return _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
  };
  const auto quarters = [](__m128 x, __m128 y) {
    return _mm_add_ps(_mm_movelh_ps(x, y), _mm_movehl_ps(y, x));
  };
  const __m128 ab = quarters(half(a), half(b)), cd = quarters(half(c), half(d));
  return _mm_add_ps(_mm_shuffle_ps(ab, cd, 0x88), _mm_shuffle_ps(ab, cd, 0xDD));
}

// Sixteen lanes, added up to eight: in this order with any lanes.
inline Eight eight_of(const Eight (&x)[2]) { return x[0] + x[1]; }

// Of positive numbers and NaN, which is above all as an integer.
inline Eight most_or_nan(Eight a, Eight b) {
  return {_mm256_castsi256_ps(
      _mm256_max_epi32(_mm256_castps_si256(a.v), _mm256_castps_si256(b.v)))};
}
inline float largest_or_nan(Eight x) {
  const __m256i v = _mm256_castps_si256(x.v);
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4E));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xB1));
  return _mm_cvtss_f32(_mm_castsi128_ps(half));
}

// Rounded to bytes, 4 of them at each `step`. Returns the integers, in 8 sums.
inline __m256i store_bytes(Eight x, int8_t* to, int step) {
  const __m256i wide = _mm256_cvtps_epi32(x.v);
  const __m256i words = _mm256_packs_epi32(wide, wide), bytes = _mm256_packs_epi16(words, words);
  const int32_t first = _mm256_extract_epi32(bytes, 0), second = _mm256_extract_epi32(bytes, 4);
  __builtin_memcpy(to, &first, 4);
  __builtin_memcpy(to + step, &second, 4);
  return wide;
}

// Rounded to words of 16 bits, and to signed bytes, one behind the other.
inline __m128i words_of(Eight x) {
  const __m256i wide = _mm256_cvtps_epi32(x.v);
  return _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
}
inline void store_words(Eight x, int16_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), words_of(x));
}
inline void store_signed(Eight x, int8_t* to) {
  const __m128i words = words_of(x);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
}

// Whether none is NaN.
inline bool all_numbers(Eight x) {
  return _mm256_movemask_ps(_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q)) == 0;
}

}  // namespace
}  // namespace lepton
