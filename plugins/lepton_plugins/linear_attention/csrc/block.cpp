// A panel is two vectors of columns, so that four tokens have eight sums in registers.
#include "block.h"

namespace lepton {
namespace {

constexpr float kZeros[kMostDepth] = {};

float dot(const float* x, const float* y, int64_t count) {
  __m256 total = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    total = _mm256_fmadd_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i), total);
  }
  float rest = 0.0f;
  for (; i < count; ++i) rest += x[i] * y[i];
  return sum(Eight{total}) + rest;
}

void interleave(const float* const (&rows)[kBlock], int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4, to += 16) {
    __m128 a = _mm_loadu_ps(rows[0] + i), b = _mm_loadu_ps(rows[1] + i);
    __m128 c = _mm_loadu_ps(rows[2] + i), d = _mm_loadu_ps(rows[3] + i);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to, a);
    _mm_storeu_ps(to + 4, b);
    _mm_storeu_ps(to + 8, c);
    _mm_storeu_ps(to + 12, d);
  }
  for (; i < count; ++i) {
    for (const float* row : rows) *to++ = row[i];
  }
}

// sum += row (left, right)
inline void add_products(const float* row, __m256 left, __m256 right, __m256& first,
                         __m256& second) {
  const __m256 all = _mm256_broadcast_ss(row);
  first = _mm256_fmadd_ps(all, left, first);
  second = _mm256_fmadd_ps(all, right, second);
}

// sum[t] = panel^T row t. With names of their own the sums stay in registers; those of an array are
// stored at every step.
void multiply(const float* rows, const float* panel, int64_t depth, __m256 (&sum)[kBlock][2]) {
  const __m256 zero = _mm256_setzero_ps();
  __m256 a0 = zero, a1 = zero, b0 = zero, b1 = zero, c0 = zero, c1 = zero, d0 = zero, d1 = zero;
  for (int64_t i = 0; i < depth; ++i, panel += kPanel, rows += kBlock) {
    const __m256 left = _mm256_loadu_ps(panel), right = _mm256_loadu_ps(panel + 8);
    add_products(rows, left, right, a0, a1);
    add_products(rows + 1, left, right, b0, b1);
    add_products(rows + 2, left, right, c0, c1);
    add_products(rows + 3, left, right, d0, d1);
  }
  sum[0][0] = a0;
  sum[0][1] = a1;
  sum[1][0] = b0;
  sum[1][1] = b1;
  sum[2][0] = c0;
  sum[2][1] = c1;
  sum[3][0] = d0;
  sum[3][1] = d1;
}

// panel = gate panel + sum(row t u[t]^T)
template <bool ByDepth>
void accumulate(const float* gates, const float* rows, const __m256 (&u)[kBlock][2], int64_t depth,
                float* panel) {
  __m256 own[kBlock][2];
  for (int t = 0; t < kBlock; ++t) {
    own[t][0] = u[t][0];
    own[t][1] = u[t][1];
  }
  const __m256 all = _mm256_broadcast_ss(gates);
  for (int64_t i = 0; i < depth; ++i, panel += kPanel) {
    const __m256 gate = ByDepth ? _mm256_broadcast_ss(gates + i) : all;
    __m256 left = _mm256_mul_ps(gate, _mm256_loadu_ps(panel));
    __m256 right = _mm256_mul_ps(gate, _mm256_loadu_ps(panel + 8));
    for (int t = 0; t < kBlock; ++t) {
      const __m256 row = _mm256_broadcast_ss(rows + kBlock * i + t);
      left = _mm256_fmadd_ps(row, own[t][0], left);
      right = _mm256_fmadd_ps(row, own[t][1], right);
    }
    _mm256_storeu_ps(panel, left);
    _mm256_storeu_ps(panel + 8, right);
  }
}

}  // namespace

void Block::read(int64_t first) {
  first_ = first;
  const int64_t left = part_.a.tokens - first;
  count_ = left < kBlock ? static_cast<int>(left) : kBlock;
  for (int t = 0; t < kBlock; ++t) {
    key_[t] = t < count_ ? part_.key(first + t) : kZeros;
    query_[t] = t < count_ ? part_.query(first + t) : kZeros;
  }
  if (part_.a.by_depth) {
    relate_by_depth();
  } else {
    relate_by_head();
  }
}

void Block::relate_by_head() {
  float gate[kBlock], all = 1.0f;
  for (int t = 0; t < kBlock; ++t) {
    gate[t] = t < count_ ? part_.gate(first_ + t) : 1.0f;
    reached_[t] = all *= gate[t];
  }
  gate_[0] = all;
  for (int s = 0; s < kBlock; ++s) {
    float between = 1.0f;
    for (int t = s; t < kBlock; ++t) {
      if (t > s) between *= gate[t];
      keys_[t][s] = between * dot(key_[s], key_[t], depth_);
      queries_[t][s] = between * dot(key_[s], query_[t], depth_);
    }
    left_[s] = between;
  }
  interleave(key_, depth_, seen_);
  interleave(query_, depth_, asks_);
}

void Block::relate_by_depth() {
  // Rows of the four tokens: decays, and keys and queries times what has decayed.
  float gates[kBlock][kMostDepth], seen[kBlock][kMostDepth], asks[kBlock][kMostDepth];
  for (int64_t i = 0; i < depth_; ++i) gate_[i] = 1.0f;
  for (int t = 0; t < kBlock; ++t) {
    reached_[t] = left_[t] = 1.0f;
    if (t < count_) part_.gates(first_ + t, gates[t]);
    for (int64_t i = 0; i < depth_; ++i) {
      if (t >= count_) gates[t][i] = 1.0f;
      gate_[i] *= gates[t][i];
      seen[t][i] = gate_[i] * key_[t][i];
      asks[t][i] = gate_[i] * query_[t][i];
    }
  }
  interleave({seen[0], seen[1], seen[2], seen[3]}, depth_, seen_);
  interleave({asks[0], asks[1], asks[2], asks[3]}, depth_, asks_);
  for (int s = 0; s < kBlock; ++s) {
    float* row = seen[s];
    memcpy(row, key_[s], depth_ * sizeof(float));
    for (int t = s; t < kBlock; ++t) {
      for (int64_t i = 0; t > s && i < depth_; ++i) row[i] *= gates[t][i];
      keys_[t][s] = dot(row, key_[t], depth_);
      queries_[t][s] = dot(row, query_[t], depth_);
    }
  }
  interleave({seen[0], seen[1], seen[2], seen[3]}, depth_, added_);
}

void Block::run(int64_t column, int64_t columns, float* panel) const {
  const bool whole = columns == kPanel;
  float values[kBlock][kPanel], results[kBlock][kPanel];
  const float* value[kBlock];
  float* y[kBlock];
  for (int t = 0; t < kBlock; ++t) {
    const bool there = t < count_;
    value[t] = there ? part_.value(first_ + t) + column : kZeros;
    y[t] = there && whole ? part_.y(first_ + t) + column : results[t];
    if (!there || whole) continue;
    memset(values[t], 0, sizeof values[t]);
    value[t] = static_cast<float*>(memcpy(values[t], value[t], columns * sizeof(float)));
  }
  __m256 u[kBlock][2];
  update(panel, value, u);
  result(panel, u, y);
  add(u, panel);
  for (int t = 0; t < count_ && !whole; ++t) {
    memcpy(part_.y(first_ + t) + column, results[t], columns * sizeof(float));
  }
}

void Block::update(const float* panel, const float* const (&value)[kBlock],
                   __m256 (&u)[kBlock][2]) const {
  for (int t = 0; t < kBlock; ++t) {
    for (int c = 0; c < 2; ++c) u[t][c] = _mm256_loadu_ps(value[t] + 8 * c);
  }
  if (part_.a.beta == nullptr) return;
  __m256 known[kBlock][2];
  multiply(seen_, panel, depth_, known);
  for (int t = 0; t < kBlock; ++t) {
    const __m256 reached = _mm256_set1_ps(reached_[t]);
    const __m256 beta = _mm256_set1_ps(t < count_ ? part_.beta(first_ + t) : 0.0f);
    for (int c = 0; c < 2; ++c) {
      __m256 rest = _mm256_fnmadd_ps(reached, known[t][c], u[t][c]);
      for (int s = 0; s < t; ++s) {
        rest = _mm256_fnmadd_ps(_mm256_set1_ps(keys_[t][s]), u[s][c], rest);
      }
      u[t][c] = _mm256_mul_ps(beta, rest);
    }
  }
}

void Block::result(const float* panel, const __m256 (&u)[kBlock][2],
                   float* const (&y)[kBlock]) const {
  __m256 found[kBlock][2];
  multiply(asks_, panel, depth_, found);
  const __m256 scale = _mm256_set1_ps(part_.a.scale);
  for (int t = 0; t < kBlock; ++t) {
    const __m256 reached = _mm256_set1_ps(reached_[t]);
    for (int c = 0; c < 2; ++c) {
      __m256 total = _mm256_mul_ps(reached, found[t][c]);
      for (int s = 0; s <= t; ++s) {
        total = _mm256_fmadd_ps(_mm256_set1_ps(queries_[t][s]), u[s][c], total);
      }
      _mm256_storeu_ps(y[t] + 8 * c, _mm256_mul_ps(scale, total));
    }
  }
}

void Block::add(const __m256 (&u)[kBlock][2], float* panel) const {
  __m256 left[kBlock][2];
  for (int t = 0; t < kBlock; ++t) {
    for (int c = 0; c < 2; ++c) left[t][c] = _mm256_mul_ps(_mm256_set1_ps(left_[t]), u[t][c]);
  }
  if (part_.a.by_depth) {
    accumulate<true>(gate_, added_, left, depth_, panel);
  } else {
    accumulate<false>(gate_, seen_, left, depth_, panel);
  }
}

}  // namespace lepton
