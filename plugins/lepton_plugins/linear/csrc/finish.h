// What becomes of the products of some rows and a tile: bias, activation or gate, and a place.
#pragma once
#include <cstddef>

#include "activation.h"

namespace lepton {

// y[m * stride + c] for m below `rows` and c below `columns`, 1 to 16.
struct Corner {
  float* y;
  ptrdiff_t stride;
  int rows, columns;
};

// Products (rows, 16) of a tile, and the 16 or fewer of a bias, or null.
struct Products {
  const float* all;
  const float* bias;
};

// activation(products + bias)
void finish(const Products& products, Activation activation, const Corner& to);

// Of 16 columns: activation(gate) * let, or what another kind of gate makes of them.
void finish_gated(const Products& gate, const Products& let, Activation activation, const Gate& kind,
                  const Corner& to);

}  // namespace lepton
