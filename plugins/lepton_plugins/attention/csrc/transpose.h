// Rows of a block, turned over.
#pragma once
#include <immintrin.h>

#include <cstdint>

#include "form.h"

namespace lepton {
namespace {

// keys (head_dim, kKeys) = the keys turned over; what is missing to kKeys is 0.
inline void transpose(const float* key, int64_t token, int count, int head_dim, float* keys) {
  for (int j = 0; j < kKeys; j += 8) {
    for (int d = 0; d < head_dim; d += 8) {
      __m256 v[8], t[8];
      for (int i = 0; i < 8; ++i) {
        v[i] = j + i < count ? _mm256_loadu_ps(key + (j + i) * token + d) : _mm256_setzero_ps();
      }
      for (int i = 0; i < 4; ++i) {
        t[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
      }
      for (int i = 0; i < 2; ++i) {
        v[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
        v[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xEE);
        v[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        v[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xEE);
      }
      for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(keys + (d + i) * kKeys + j, _mm256_permute2f128_ps(v[i], v[4 + i], 0x20));
        _mm256_storeu_ps(keys + (d + 4 + i) * kKeys + j,
                         _mm256_permute2f128_ps(v[i], v[4 + i], 0x31));
      }
    }
  }
}

}  // namespace
}  // namespace lepton
