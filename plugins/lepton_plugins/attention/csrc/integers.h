// Products of small integers in AVX2, added up in 32 bits: 8 columns in a register.
#pragma once
#include "../../toolchain/csrc/lanes.h"

namespace lepton {
namespace {

struct EightIntegers {
  using Lanes = Eight;
  // Two words, or four bytes, of each column; sums.
  struct Words {
    __m256i all;
  };
  struct Bytes {
    __m256i all;
  };
  struct Sums {
    __m256i all;
  };

  static Sums none() { return {_mm256_setzero_si256()}; }
  static Words words(const int16_t* p) { return {load(p)}; }
  static Bytes bytes(const int8_t* p) { return {load(p)}; }
  // Words of as many bytes.
  static Words widened(const int8_t* p) {
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }

  // a[2 c] * b[2 c] + a[2 c + 1] * b[2 c + 1]
  static Sums pairs(Words a, Words b) { return {_mm256_madd_epi16(a.all, b.all)}; }

  // sums[c] + w[2 c] * two[0] + w[2 c + 1] * two[1]
  static Sums add(Sums sums, Words w, const int16_t* two) {
    return {_mm256_add_epi32(sums.all, _mm256_madd_epi16(w.all, repeated(two)))};
  }

  // sums[c] + the products of eight[i] with the 4 of `first` and the 4 of `second`. Four of them are
  // added in 16 bits, where there has to be room.
  static Sums add(Sums sums, Bytes first, Bytes second, const uint8_t* eight) {
    const __m256i four = _mm256_add_epi16(_mm256_maddubs_epi16(repeated(eight), first.all),
                                          _mm256_maddubs_epi16(repeated(eight + 4), second.all));
    return {_mm256_add_epi32(sums.all, _mm256_madd_epi16(four, _mm256_set1_epi16(1)))};
  }

  // Compilers would repeat all factors first, and then have no registers left for sums.
  static void keep(Sums& sums) { asm volatile("" : "+x"(sums.all)); }

  static Eight floats(Sums sums) { return {_mm256_cvtepi32_ps(sums.all)}; }

 private:
  static __m256i load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static __m256i repeated(const void* four) {
    int32_t value;
    __builtin_memcpy(&value, four, sizeof value);
    return _mm256_set1_epi32(value);
  }
};

// Rounded to bytes, one behind the other.
inline void store_row(Eight x, uint8_t* to) { store_signed(x, reinterpret_cast<int8_t*>(to)); }

}  // namespace
}  // namespace lepton
