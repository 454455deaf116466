// What may follow a linear layer while its results are in registers.
#pragma once
#include <cstdint>

#include "../../toolchain/csrc/vector.h"

namespace lepton {

enum class Activation : int32_t { kNone = 0, kGelu = 1, kGeluTanh = 2, kSilu = 3, kRelu2 = 4 };

template <class Lanes>
static inline Lanes activated(Activation activation, Lanes x) {
  const Lanes half = x * Lanes::all(0.5f);
  switch (activation) {
    case Activation::kGelu:
      return fused(half, error_function(x * Lanes::all(0.70710678f)), half);
    case Activation::kGeluTanh: {
      const Lanes inner = fused(x * x * x, Lanes::all(0.044715f), x);
      return fused(half, hyperbolic_tangent(inner * Lanes::all(0.79788456f)), half);
    }
    case Activation::kSilu:
      return x * sigmoid(x);
    case Activation::kRelu2: {
      const Lanes positive = most(Lanes::all(0.0f), x);
      return positive * positive;
    }
    default:
      return x;
  }
}

// How the halves of a gated layer meet where more is between them than an activation and a product:
// g * sigmoid(alpha * g) * (u + beta), g at most `limit` and u within it both ways; 0 is no limit.
struct Gate {
  float alpha = 1.0f, limit = 0.0f, beta = 0.0f;

  bool plain() const { return alpha == 1.0f && limit == 0.0f && beta == 0.0f; }

  template <class Lanes>
  Lanes met(Lanes g, Lanes u) const {
    if (limit > 0.0f) {
      const Lanes upper = Lanes::all(limit), lower = Lanes::all(-limit);
      g = least(upper, g);
      u = most(lower, least(upper, u));
    }
    return g * sigmoid(g * Lanes::all(alpha)) * (u + Lanes::all(beta));
  }
};

}  // namespace lepton
