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
      const __m256 positive = _mm256_max_ps(x, _mm256_setzero_ps());
      return _mm256_mul_ps(positive, positive);
    }
    default:
      return x;
  }
}

}  // namespace lepton
