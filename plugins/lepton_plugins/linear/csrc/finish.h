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

// Products (rows, 16) of a tile, and as many numbers of a bias as there are columns, or null.
struct Products {
  const float* all;
  const float* bias;
};

}  // namespace lepton
