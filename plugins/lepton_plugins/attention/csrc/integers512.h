// The same in AVX-512 with VNNI: 16 columns in a register, and products are added as they are made.
// Where LEPTON_EMULATES_AVX512 is defined they are two of AVX2.
#pragma once
#include "../../toolchain/csrc/lanes512.h"
#include "integers.h"

namespace lepton {
namespace {

#if defined(LEPTON_EMULATES_AVX512)

struct SixteenIntegers {
  using Lanes = Sixteen;
  using Eights = EightIntegers;
  struct Words {
    Eights::Words low, high;
  };
  struct Bytes {
    Eights::Bytes low, high;
  };
  struct Sums {
    Eights::Sums low, high;
  };

  static Sums none() { return {Eights::none(), Eights::none()}; }
  static Words words(const int16_t* p) { return {Eights::words(p), Eights::words(p + 16)}; }
  static Bytes bytes(const int8_t* p) { return {Eights::bytes(p), Eights::bytes(p + 32)}; }
  static Words widened(const int8_t* p) { return {Eights::widened(p), Eights::widened(p + 16)}; }
  static Sums pairs(Words a, Words b) {
    return {Eights::pairs(a.low, b.low), Eights::pairs(a.high, b.high)};
  }
  static Sums add(Sums sums, Words w, const int16_t* two) {
    return {Eights::add(sums.low, w.low, two), Eights::add(sums.high, w.high, two)};
  }
  static Sums add(Sums sums, Bytes first, Bytes second, const uint8_t* eight) {
    return {Eights::add(sums.low, first.low, second.low, eight),
            Eights::add(sums.high, first.high, second.high, eight)};
  }
  static void keep(Sums& sums) {
    Eights::keep(sums.low);
    Eights::keep(sums.high);
  }
  static Sixteen floats(Sums sums) { return {Eights::floats(sums.low), Eights::floats(sums.high)}; }
};

inline void store_row(Sixteen x, uint8_t* to) {
  store_row(x.low, to);
  store_row(x.high, to + 8);
}

#else

struct SixteenIntegers {
  using Lanes = Sixteen;
  struct Words {
    __m512i all;
  };
  struct Bytes {
    __m512i all;
  };
  struct Sums {
    __m512i all;
  };

  static Sums none() { return {_mm512_setzero_si512()}; }
  static Words words(const int16_t* p) { return {_mm512_loadu_si512(p)}; }
  static Bytes bytes(const int8_t* p) { return {_mm512_loadu_si512(p)}; }
  static Words widened(const int8_t* p) {
    return {_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Sums pairs(Words a, Words b) { return {_mm512_madd_epi16(a.all, b.all)}; }
  static Sums add(Sums sums, Words w, const int16_t* two) {
    return {_mm512_dpwssd_epi32(sums.all, w.all, repeated(two))};
  }
  static Sums add(Sums sums, Bytes first, Bytes second, const uint8_t* eight) {
    const __m512i near = _mm512_dpbusd_epi32(sums.all, repeated(eight), first.all);
    return {_mm512_dpbusd_epi32(near, repeated(eight + 4), second.all)};
  }
  static void keep(Sums& sums) { asm volatile("" : "+v"(sums.all)); }
  static Sixteen floats(Sums sums) { return {_mm512_cvtepi32_ps(sums.all)}; }

 private:
  static __m512i repeated(const void* four) {
    int32_t value;
    __builtin_memcpy(&value, four, sizeof value);
    return _mm512_set1_epi32(value);
  }
};

inline void store_row(Sixteen x, uint8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x.v)));
}

#endif

}  // namespace
}  // namespace lepton
