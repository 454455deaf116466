// Linear attention: a matrix for each head that decays, and that every token adds to.
#pragma once
#include <cstdint>

#include "../../toolchain/csrc/parallel.h"

namespace lepton {

constexpr int64_t kMostDepth = 512;

struct LinearAttention {
  const float* query;  // (batch, tokens, query_heads, depth)
  const float* key;    // (batch, tokens, key_heads, depth)
  const float* value;  // (batch, tokens, heads, width)
  const float* past;   // (batch, heads, depth, width)
  const float* decay;  // logarithms: (batch, tokens, heads), or (batch, tokens, heads, depth)
  const float* beta;   // (batch, tokens, heads); or null, without the delta rule
  float* y;            // as value
  float* present;      // as past, and may be the same memory
  int64_t batch, tokens, query_heads, key_heads, heads, depth, width;
  float scale;
  bool by_depth;       // each row of a matrix has a decay of its own
};

void attend_linearly(const Parallel& parallel, const LinearAttention& a);

}  // namespace lepton
