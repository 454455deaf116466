#include "finish.h"

#include "tiles.h"

namespace lepton {
namespace {

// Of one row.
struct Sixteen {
  __m256 low, high;

  Sixteen(const Products& products, int row) {
    const float* from = products.all + row * kTile;
    low = _mm256_loadu_ps(from);
    high = _mm256_loadu_ps(from + 8);
    if (products.bias == nullptr) return;
    low = _mm256_add_ps(low, _mm256_loadu_ps(products.bias));
    high = _mm256_add_ps(high, _mm256_loadu_ps(products.bias + 8));
  }

  void store(float* y) const {
    _mm256_storeu_ps(y, low);
    _mm256_storeu_ps(y + 8, high);
  }
};

}  // namespace

void finish(const Products& products, Activation activation, const Corner& to) {
  float bias[kTile] = {};
  Products whole = products;
  if (products.bias != nullptr && to.columns < kTile) {
    __builtin_memcpy(bias, products.bias, to.columns * sizeof(float));
    whole.bias = bias;
  }
  for (int m = 0; m < to.rows; ++m) {
    Sixteen row(whole, m);
    if (activation != Activation::kNone) {
      row.low = activated(activation, row.low);
      row.high = activated(activation, row.high);
    }
    float* y = to.y + m * to.stride;
    if (to.columns == kTile) {
      row.store(y);
      continue;
    }
    float all[kTile];
    row.store(all);
    __builtin_memcpy(y, all, to.columns * sizeof(float));
  }
}

void finish_gated(const Products& gate, const Products& let, Activation activation, const Gate& kind,
                  const Corner& to) {
  const bool plain = kind.plain();
  for (int m = 0; m < to.rows; ++m) {
    Sixteen g(gate, m);
    const Sixteen u(let, m);
    if (plain) {
      g.low = _mm256_mul_ps(activated(activation, g.low), u.low);
      g.high = _mm256_mul_ps(activated(activation, g.high), u.high);
    } else {
      g.low = kind.met(g.low, u.low);
      g.high = kind.met(g.high, u.high);
    }
    g.store(to.y + m * to.stride);
  }
}

}  // namespace lepton
