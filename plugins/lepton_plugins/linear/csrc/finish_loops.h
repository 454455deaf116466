// The loops of what follows products, over any lanes that 16 columns are a multiple of.
#pragma once
#include "finish.h"
#include "tiles.h"

namespace lepton {
namespace {

template <class Lanes>
inline Lanes biased(const Products& products, int row, int c) {
  const Lanes x = Lanes::load(products.all + row * kTile + c);
  return products.bias == nullptr ? x : x + Lanes::load(products.bias + c);
}

template <class Lanes>
inline void finish_row(const Products& products, Activation activation, int row, float* y) {
#pragma GCC unroll 2
  for (int c = 0; c < kTile; c += Lanes::kLanes) {
    activated(activation, biased<Lanes>(products, row, c)).store(y + c);
  }
}

// activation(products + bias)
template <class Lanes>
void finish(const Products& products, Activation activation, const Corner& to) {
  if (to.columns == kTile) {
    for (int m = 0; m < to.rows; ++m) {
      finish_row<Lanes>(products, activation, m, to.y + m * to.stride);
    }
    return;
  }
  float bias[kTile] = {}, row[kTile];
  if (products.bias != nullptr) {
    __builtin_memcpy(bias, products.bias, to.columns * sizeof(float));
  }
  for (int m = 0; m < to.rows; ++m) {
    finish_row<Lanes>({products.all, bias}, activation, m, row);
    __builtin_memcpy(to.y + m * to.stride, row, to.columns * sizeof(float));
  }
}

// Of 16 columns: activation(gate) * let, or what another kind of gate makes of them.
template <class Lanes>
void finish_gated(const Products& gate, const Products& let, Activation activation,
                  const Gate& kind, const Corner& to) {
  const bool plain = kind.plain();
  for (int m = 0; m < to.rows; ++m) {
#pragma GCC unroll 2
    for (int c = 0; c < kTile; c += Lanes::kLanes) {
      const Lanes g = biased<Lanes>(gate, m, c), u = biased<Lanes>(let, m, c);
      (plain ? activated(activation, g) * u : kind.met(g, u)).store(to.y + m * to.stride + c);
    }
  }
}

}  // namespace
}  // namespace lepton
