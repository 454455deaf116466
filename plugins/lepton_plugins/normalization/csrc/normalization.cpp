// A row is read once from memory: the sum goes to the result, and the result is worked on in place.
#include "normalization.h"

#include "../../toolchain/csrc/vector.h"

namespace lepton {
namespace {

constexpr int64_t kBand = 1 << 13;  // numbers that are worth a thread of their own

struct Bands {
  const Normalization& n;
  int64_t rows;  // of a band
};

// Sums for the mean and the variance about it, which one pass over squares would lose digits of.
struct Moments {
  float mean, inverse;
};

// The sum of what `add` makes of a sum and 8 numbers, and of `rest` of those behind the last 8. Four
// sums at once: one would wait for itself.
template <class Add, class Rest>
float sum_of(const float* row, int64_t width, Add add, Rest rest) {
  __m256 total[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                     _mm256_setzero_ps()};
  int64_t i = 0;
  for (; i + 32 <= width; i += 32) {
    for (int k = 0; k < 4; ++k) total[k] = add(total[k], _mm256_loadu_ps(row + i + 8 * k));
  }
  for (; i + 8 <= width; i += 8) total[0] = add(total[0], _mm256_loadu_ps(row + i));
  float all = sum(Eight{total[0]} + Eight{total[1]} + (Eight{total[2]} + Eight{total[3]}));
  for (; i < width; ++i) all += rest(row[i]);
  return all;
}

Moments moments(const Normalization& n, const float* row) {
  const float count = static_cast<float>(n.width);
  float mean = 0.0f;
  if (!n.rms) {
    mean = sum_of(
        row, n.width, [](__m256 total, __m256 x) { return _mm256_add_ps(total, x); },
        [](float x) { return x; });
    mean /= count;
  }
  const __m256 middle = _mm256_set1_ps(mean);
  const float total = sum_of(
      row, n.width,
      [&](__m256 squares, __m256 x) {
        const __m256 v = _mm256_sub_ps(x, middle);
        return _mm256_fmadd_ps(v, v, squares);
      },
      [&](float x) { return (x - mean) * (x - mean); });
  const __m128 root = _mm_sqrt_ss(_mm_set_ss(total / count + n.epsilon));
  return {mean, 1.0f / _mm_cvtss_f32(root)};
}

void add(const float* x, const float* skip, int64_t width, float* y) {
  int64_t i = 0;
  for (; i + 8 <= width; i += 8) {
    _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(skip + i)));
  }
  for (; i < width; ++i) y[i] = x[i] + skip[i];
}

// What the moments, a gamma and a beta make of a row, in place or not.
void scale(const Normalization& n, const float* row, const float* gamma, const float* beta,
           float* y) {
  const Moments m = moments(n, row);
  const __m256 mean = _mm256_set1_ps(m.mean), inverse = _mm256_set1_ps(m.inverse);
  int64_t i = 0;
  for (; i + 8 <= n.width; i += 8) {
    const __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(row + i), mean), inverse);
    const __m256 g = _mm256_loadu_ps(gamma + i);
    const __m256 b = beta != nullptr ? _mm256_loadu_ps(beta + i) : _mm256_setzero_ps();
    _mm256_storeu_ps(y + i, _mm256_fmadd_ps(v, g, b));
  }
  for (; i < n.width; ++i) {
    y[i] = (row[i] - m.mean) * m.inverse * gamma[i] + (beta != nullptr ? beta[i] : 0.0f);
  }
}

}  // namespace

void normalize_row(const Normalization& n, int64_t index) {
  const int64_t at = index * n.width;
  const float* row = n.x + at;
  float* y = n.y + at;
  if (n.skip != nullptr) {
    float* both = n.sum != nullptr ? n.sum + at : y;
    if (n.own != nullptr) {
      scale(n, row, n.own, nullptr, both);
      row = both;
    }
    add(row, n.skip + at, n.width, both);
    row = both;
  }
  scale(n, row, n.gamma, n.beta, y);
  if (n.residual != nullptr) add(y, n.residual + at, n.width, y);
}

void normalize(const Parallel& parallel, const Normalization& n) {
  const Bands bands{n, kBand / n.width + 1};
  parallel.run(
      (n.rows + bands.rows - 1) / bands.rows,
      [](void* user, size_t i) {
        const Bands& b = *static_cast<const Bands*>(user);
        const int64_t first = static_cast<int64_t>(i) * b.rows;
        const int64_t last = first + b.rows < b.n.rows ? first + b.rows : b.n.rows;
        for (int64_t row = first; row < last; ++row) normalize_row(b.n, row);
      },
      const_cast<Bands*>(&bands));
}

}  // namespace lepton
