// Some columns of one head's matrix, and where its tokens lie.
#pragma once
#include <cstring>

#include "../../toolchain/csrc/vector.h"
#include "linear_attention.h"

namespace lepton {

struct Part {
  const LinearAttention& a;
  int64_t matrix;  // row of the batch * heads + head
  int64_t first, columns;

  int64_t row() const { return matrix / a.heads; }
  int64_t head() const { return matrix % a.heads; }
  const float* past() const { return a.past + matrix * a.depth * a.width + first; }
  float* present() const { return a.present + matrix * a.depth * a.width + first; }

  const float* key(int64_t t) const { return shared(a.key, a.key_heads, t); }
  const float* query(int64_t t) const { return shared(a.query, a.query_heads, t); }
  const float* value(int64_t t) const { return a.value + place(t) * a.width + first; }
  float* y(int64_t t) const { return a.y + place(t) * a.width + first; }

  float beta(int64_t t) const { return a.beta != nullptr ? a.beta[place(t)] : 0.0f; }
  float gate(int64_t t) const {
    return _mm256_cvtss_f32(exponential(Eight::all(a.decay[place(t)])).v);
  }
  // The same for each row of the matrix; `to` has room for whole vectors.
  void gates(int64_t t, float* to) const {
    const float* decay = a.decay + place(t) * a.depth;
    for (int64_t i = 0; i < a.depth; i += 8) {
      float eight[8] = {};
      const int64_t left = a.depth - i;
      memcpy(eight, decay + i, (left < 8 ? left : 8) * sizeof(float));
      exponential(Eight::load(eight)).store(to + i);
    }
  }

 private:
  int64_t place(int64_t t) const { return (row() * a.tokens + t) * a.heads + head(); }
  const float* shared(const float* x, int64_t heads, int64_t t) const {
    return x + ((row() * a.tokens + t) * heads + head() * heads / a.heads) * a.depth;
  }
};

}  // namespace lepton
