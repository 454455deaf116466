// Two passes over a few columns: what the matrix knows of the key, then the sum and the result. The
// second finds the columns in the first cache.
#include "one_token.h"

namespace lepton {
namespace {

// What a token brings.
struct Token {
  const float *key, *query;
  const float* seen;  // key times the decay of each row; or key
  const float* gate;  // of each row; or of all
  int64_t depth, stride;
  float beta, scale;
  bool delta;
};

// V vectors of columns: as many sums, and the more of a row at once, the fewer streams of memory.
template <int V, bool ByDepth, class Lanes>
void step(const Token& t, const Lanes& lanes, const float* value, const float* from, float* to,
          float* y) {
  const __m256 gate = _mm256_set1_ps(ByDepth ? 1.0f : *t.gate);
  __m256 update[V], sum[V];
  for (int c = 0; c < V; ++c) {
    update[c] = lanes.load(value + 8 * c);
    sum[c] = _mm256_setzero_ps();
  }
  if (t.delta) {
    for (int64_t i = 0; i < t.depth; ++i) {
      const __m256 key = _mm256_broadcast_ss(t.seen + i);
      for (int c = 0; c < V; ++c) {
        sum[c] = _mm256_fmadd_ps(key, lanes.load(from + i * t.stride + 8 * c), sum[c]);
      }
    }
    const __m256 beta = _mm256_set1_ps(t.beta);
    for (int c = 0; c < V; ++c) {
      update[c] = _mm256_mul_ps(beta, _mm256_fnmadd_ps(gate, sum[c], update[c]));
      sum[c] = _mm256_setzero_ps();
    }
  }
  for (int64_t i = 0; i < t.depth; ++i) {
    const __m256 g = ByDepth ? _mm256_broadcast_ss(t.gate + i) : gate;
    const __m256 key = _mm256_broadcast_ss(t.key + i), query = _mm256_broadcast_ss(t.query + i);
    for (int c = 0; c < V; ++c) {
      const __m256 old = _mm256_mul_ps(g, lanes.load(from + i * t.stride + 8 * c));
      const __m256 now = _mm256_fmadd_ps(key, update[c], old);
      lanes.store(to + i * t.stride + 8 * c, now);
      sum[c] = _mm256_fmadd_ps(query, now, sum[c]);
    }
  }
  const __m256 scale = _mm256_set1_ps(t.scale);
  for (int c = 0; c < V; ++c) lanes.store(y + 8 * c, _mm256_mul_ps(scale, sum[c]));
}

template <bool ByDepth>
void steps(const Part& part, const Token& t) {
  const float *value = part.value(0), *past = part.past();
  float *y = part.y(0), *present = part.present();
  int64_t c = 0;
  for (; c + 64 <= part.columns; c += 64) {
    step<8, ByDepth>(t, Whole(), value + c, past + c, present + c, y + c);
  }
  for (; c + 32 <= part.columns; c += 32) {
    step<4, ByDepth>(t, Whole(), value + c, past + c, present + c, y + c);
  }
  for (; c + 8 <= part.columns; c += 8) {
    step<1, ByDepth>(t, Whole(), value + c, past + c, present + c, y + c);
  }
  if (c == part.columns) return;
  step<1, ByDepth>(t, Ragged(part.columns - c), value + c, past + c, present + c, y + c);
}

}  // namespace

void one_token(const Part& part) {
  const LinearAttention& a = part.a;
  float gates[kMostDepth], seen[kMostDepth];
  const float *key = part.key(0), *query = part.query(0);
  Token t{key, query, key, gates, a.depth, a.width, part.beta(0), a.scale, a.beta != nullptr};
  if (!a.by_depth) {
    gates[0] = part.gate(0);
    return steps<false>(part, t);
  }
  part.gates(0, gates);
  for (int64_t i = 0; i < a.depth; ++i) seen[i] = gates[i] * key[i];
  t.seen = seen;
  steps<true>(part, t);
}

}  // namespace lepton
