// Rows of halves (fp16), and of floats that become such.
#pragma once
#include "../../toolchain/csrc/lanes.h"

namespace lepton {
namespace {

constexpr float kMostOfHalf = 65504.0f;

// Rows (count, width), `row` halves apart, to floats one behind the other; width is a multiple of 8.
inline void widen(const uint16_t* halves, int64_t row, int count, int width, float* y) {
  for (int j = 0; j < count; ++j) {
    for (int d = 0; d < width; d += 8) Eight::load(halves + j * row + d).store(y + j * width + d);
  }
}

// To the nearest half. What is beyond them becomes the largest one, as weights do; NaN stays NaN.
inline void narrow(const float* x, int width, uint16_t* y) {
  const Eight most_of_half = Eight::all(kMostOfHalf), least_of_half = Eight::all(-kMostOfHalf);
  for (int d = 0; d < width; d += 8) {
    const Eight within = most(least_of_half, least(most_of_half, Eight::load(x + d)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + d),
                     _mm256_cvtps_ph(within.v, _MM_FROUND_TO_NEAREST_INT));
  }
}

}  // namespace
}  // namespace lepton
