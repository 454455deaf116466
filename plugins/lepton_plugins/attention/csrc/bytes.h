// Rows of bytes, with a scale for each 32 numbers of a row: its numbers, then the scales in fp16. A number
// is a byte times its scale, as in Q8_0 of llama.cpp.
#pragma once
#include "../../toolchain/csrc/vector.h"
#include "halves.h"

namespace lepton {
namespace {

constexpr int kByteBlock = 32;
constexpr int kMostBytes = 1024;  // numbers of a row

// Bytes of a row of `width` numbers, a multiple of 32.
constexpr int64_t row_bytes(int64_t width) { return width + width / kByteBlock * 2; }

inline float scale_of(const int8_t* row, int64_t width, int64_t block) {
  uint16_t half;
  __builtin_memcpy(&half, row + width + 2 * block, sizeof half);
  return _cvtsh_ss(half);
}

// To the nearest byte times a scale that fp16 has. Beyond 127 of the largest scale is the largest byte; of a
// block with infinity or NaN all numbers are NaN.
inline void narrow(const float* x, int64_t width, int8_t* y) {
  for (int64_t d = 0; d < width; d += kByteBlock) {
    const float top = largest_magnitude<Eight>(x + d, kByteBlock);
    const float wanted = top <= 3.4028235e38f ? top / 127.0f : __builtin_nanf("");
    const float within = wanted > kMostOfHalf ? kMostOfHalf : wanted;
    const uint16_t half = _cvtss_sh(within, _MM_FROUND_TO_NEAREST_INT);
    const float scale = _cvtsh_ss(half);
    const Eight factor = Eight::all(scale > 0 ? 1.0f / scale : 0.0f);
    const Eight most_byte = Eight::all(127.0f), least_byte = Eight::all(-127.0f);
    for (int i = 0; i < kByteBlock; i += 8) {
      const Eight each = Eight::load(x + d + i) * factor;
      store_signed(least(most_byte, most(least_byte, each)), y + d + i);
    }
    __builtin_memcpy(y + width + d / kByteBlock * 2, &half, sizeof half);
  }
}

// Rows (count, width), `row` bytes apart, to floats one behind the other.
inline void widen(const int8_t* bytes, int64_t row, int count, int width, float* y) {
  for (int j = 0; j < count; ++j, bytes += row, y += width) {
    for (int d = 0; d < width; d += 8) {
      const Eight scale = Eight::all(scale_of(bytes, width, d / kByteBlock));
      (Eight::load(bytes + d) * scale).store(y + d);
    }
  }
}

}  // namespace
}  // namespace lepton
