// Numbers of 16 columns, in AVX-512 with VNNI. Where LEPTON_EMULATES_AVX512 is defined they are
// plain loops that compute the same: the kernels built on them are then tested on any processor.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "../../toolchain/csrc/lanes512.h"
#include "tiles.h"

namespace lepton {
namespace {

#if defined(LEPTON_EMULATES_AVX512)

struct Ints {
  int32_t at[16];
};
struct Bytes {
  uint8_t at[64];
};

inline Ints all(int32_t value) {
  Ints y;
  for (int32_t& each : y.at) each = value;
  return y;
}

inline Bytes bytes(const uint8_t* p) {
  Bytes y;
  __builtin_memcpy(&y, p, sizeof y);
  return y;
}

inline Bytes half_bytes(const uint8_t* p) {
  Bytes y;
  for (int i = 0; i < 64; ++i) y.at[i] = i < 32 ? p[i] & 15 : p[i - 32] >> 4;
  return y;
}

inline Bytes half_floats(const uint8_t* p) {
  Bytes y = half_bytes(p);
  for (uint8_t& each : y.at) each = kFloats[each];
  return y;
}

inline Ints add_products(Ints sum, const Bytes& w, const uint8_t* four) {
  for (int i = 0; i < 64; ++i) sum.at[i / 4] += w.at[i] * static_cast<int8_t>(four[i % 4]);
  return sum;
}

inline Sixteen halves(const uint8_t* p) {
  float y[16];
  for (int i = 0; i < 16; ++i) {
    uint16_t half;
    __builtin_memcpy(&half, p + 2 * i, sizeof half);
    y[i] = _cvtsh_ss(half);
  }
  return Sixteen::load(y);
}

inline Sixteen floats(const Ints& x) {
  float y[16];
  for (int i = 0; i < 16; ++i) y[i] = static_cast<float>(x.at[i]);
  return Sixteen::load(y);
}

#else

using Ints = __m512i;

struct Bytes {
  __m512i all;
};

inline Ints all(int32_t value) { return _mm512_set1_epi32(value); }

inline __m256i load256(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

inline Bytes bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }

// The low halves of 32 bytes, then their high halves.
inline Bytes half_bytes(const uint8_t* p) {
  const __m512i twice = _mm512_broadcast_i64x4(load256(p));
  const __m512i places = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  return {_mm512_and_si512(_mm512_srlv_epi16(twice, places), _mm512_set1_epi8(15))};
}

inline Bytes half_floats(const uint8_t* p) {
  const __m128i once = _mm_load_si128(reinterpret_cast<const __m128i*>(kFloats));
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(once), half_bytes(p).all)};
}

// One row of activations, the same for all columns.
inline __m512i repeated(const uint8_t* four) {
  int32_t value;
  __builtin_memcpy(&value, four, sizeof value);
  return _mm512_set1_epi32(value);
}

// sum[c] + the 4 products of unsigned w[4 c + i] and signed four[i]
inline Ints add_products(Ints sum, Bytes w, const uint8_t* four) {
  return _mm512_dpbusd_epi32(sum, w.all, repeated(four));
}

inline Sixteen halves(const uint8_t* p) { return {_mm512_cvtph_ps(load256(p))}; }

inline Sixteen floats(Ints x) { return {_mm512_cvtepi32_ps(x)}; }

#endif

}  // namespace
}  // namespace lepton
