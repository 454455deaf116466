// What may follow a linear layer while its results are in registers.
#pragma once
#include <cstdint>

#include "../../toolchain/csrc/vector.h"

namespace lepton {

enum class Activation : int32_t { kNone = 0, kGelu = 1, kGeluTanh = 2, kSilu = 3, kRelu2 = 4 };

static inline __m256 activated(Activation activation, __m256 x) {
  const __m256 half = _mm256_mul_ps(x, _mm256_set1_ps(0.5f));
  switch (activation) {
    case Activation::kGelu: {
      const __m256 e = error_function(_mm256_mul_ps(x, _mm256_set1_ps(0.70710678f)));
      return _mm256_fmadd_ps(half, e, half);
    }
    case Activation::kGeluTanh: {
      const __m256 cubed = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
      const __m256 inner = _mm256_fmadd_ps(cubed, _mm256_set1_ps(0.044715f), x);
      const __m256 t = hyperbolic_tangent(_mm256_mul_ps(inner, _mm256_set1_ps(0.79788456f)));
      return _mm256_fmadd_ps(half, t, half);
    }
    case Activation::kSilu:
      return _mm256_mul_ps(x, sigmoid(x));
    case Activation::kRelu2: {
      const __m256 positive = _mm256_max_ps(_mm256_setzero_ps(), x);
      return _mm256_mul_ps(positive, positive);
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

  __m256 met(__m256 g, __m256 u) const {
    if (limit > 0.0f) {
      const __m256 most = _mm256_set1_ps(limit), least = _mm256_set1_ps(-limit);
      g = _mm256_min_ps(most, g);
      u = _mm256_max_ps(least, _mm256_min_ps(most, u));
    }
    const __m256 opened = _mm256_mul_ps(g, sigmoid(_mm256_mul_ps(g, _mm256_set1_ps(alpha))));
    return _mm256_mul_ps(opened, _mm256_add_ps(u, _mm256_set1_ps(beta)));
  }
};

}  // namespace lepton
