// Four tokens that pass over a matrix together (after Yang et al., Gated Delta Networks, 2024,
// arXiv:2412.06464). What they do to it is a matter of their products with the matrix S in front of
// the block, and with one another. Where token t has the decay g[t],
//     P[t][s] = g[s + 1] .. g[t]      G[t] = g[0] .. g[t]
//     u[t] = beta[t] (v[t] - G[t] S^T k[t] - sum(P[t][s] (k[s] . k[t]) u[s], s < t))
//     y[t] = scale (G[t] S^T q[t] + sum(P[t][s] (k[s] . q[t]) u[s], s <= t))
//     S    = G[3] S + sum(P[3][s] k[s] u[s]^T)
// Without the delta rule u = v. Where each row of S has its own decay, G and P are inside of the
// keys and queries that they are factors of. Tokens that a block lacks are zeros without decay.
#pragma once
#include "many_tokens.h"

namespace lepton {

constexpr int kBlock = 4;

class Block {
 public:
  explicit Block(const Part& part) : part_(part), depth_(part.a.depth) {}

  // The tokens from `first` on.
  void read(int64_t first);

  // Takes `columns` of the part, from `column` on, to behind these tokens; they are a panel (depth,
  // kPanel) of their own.
  void run(int64_t column, int64_t columns, float* panel) const;

 private:
  // Four rows side by side: number i of row t is to[kBlock * i + t].
  using Rows = float[kBlock * kMostDepth];

  void relate_by_head();
  void relate_by_depth();
  void update(const float* panel, const float* const (&value)[kBlock],
              __m256 (&u)[kBlock][2]) const;
  void result(const float* panel, const __m256 (&u)[kBlock][2], float* const (&y)[kBlock]) const;
  void add(const __m256 (&u)[kBlock][2], float* panel) const;

  const Part& part_;
  const int64_t depth_;
  int64_t first_ = 0;
  int count_ = 0;                                         // tokens there are
  const float *key_[kBlock], *query_[kBlock];
  float reached_[kBlock], left_[kBlock];                  // G[t], P[3][s]; or 1
  float keys_[kBlock][kBlock], queries_[kBlock][kBlock];  // [t][s], times P[t][s]
  Rows seen_, asks_, added_;                              // k and q by G, k by P; or k, q, k
  float gate_[kMostDepth];                                // G[3] of each row; or of all
};

}  // namespace lepton
