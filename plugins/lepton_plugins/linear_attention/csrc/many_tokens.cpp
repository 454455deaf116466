// A part is copied into panels, rows of 16 columns one after the other: where they lie apart, as
// columns of a matrix do, they drive one another out of the first cache.
#include "many_tokens.h"

#include "block.h"

namespace lepton {
namespace {

// Rows of `count` numbers, those in memory `from_stride` and `to_stride` apart.
void copy(const float* from, int64_t from_stride, int64_t rows, int64_t count, float* to,
          int64_t to_stride) {
  for (int64_t i = 0; i < rows; ++i, from += from_stride, to += to_stride) {
    if (count < kPanel) {
      memcpy(to, from, count * sizeof(float));
    } else {
      _mm256_storeu_ps(to, _mm256_loadu_ps(from));
      _mm256_storeu_ps(to + 8, _mm256_loadu_ps(from + 8));
    }
  }
}

}  // namespace

void many_tokens(const Part& part) {
  const int64_t depth = part.a.depth, width = part.a.width;
  const auto count_at = [&](int64_t c) {
    const int64_t left = part.columns - c;
    return left < kPanel ? left : kPanel;
  };
  alignas(64) float room[kRoom];
  for (int64_t c = 0; c < part.columns; c += kPanel) {
    float* panel = room + c * depth;
    if (count_at(c) < kPanel) memset(panel, 0, depth * kPanel * sizeof(float));
    copy(part.past() + c, width, depth, count_at(c), panel, kPanel);
  }
  Block block(part);
  for (int64_t t = 0; t < part.a.tokens; t += kBlock) {
    block.read(t);
    for (int64_t c = 0; c < part.columns; c += kPanel) block.run(c, count_at(c), room + c * depth);
  }
  for (int64_t c = 0; c < part.columns; c += kPanel) {
    copy(room + c * depth, kPanel, depth, count_at(c), part.present() + c, width);
  }
}

}  // namespace lepton
