// Causal convolution of each channel by itself, over rows that have their channels last.
#pragma once
#include <cstdint>

#include "../../toolchain/csrc/parallel.h"

namespace lepton {

constexpr int64_t kMostTaps = 64;

struct Convolution {
  const float* x;     // (batch, tokens, channels)
  const float* taps;  // (count, channels), the newest token's last
  const float* past;  // (batch, channels, count - 1), what came before x
  const float* bias;  // (channels); or null
  float* y;           // (batch, tokens, channels)
  float* present;     // as past, and may be the same memory
  int64_t batch, tokens, channels, count;
  bool silu;
};

void convolve(const Parallel& parallel, const Convolution& c);

}  // namespace lepton
