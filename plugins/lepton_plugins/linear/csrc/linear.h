// A linear layer with packed weights, over any number of rows, in parallel.
#pragma once
#include <cstdint>

#include "../../toolchain/csrc/parallel.h"
#include "activation.h"
#include "tiles.h"

namespace lepton {

struct Weights {
  Shape shape;
  int columns;
  const uint8_t* tiles;
  const int32_t* order;  // of 4 bits, (inner): what numbers of x are read as; or null
  const float* bias;     // or null
  Activation activation;
  bool gated;  // columns are those of a gate, then as many, a multiple of 16, that it is for
  Gate gate;   // between the two; anything but the plain one is in place of the activation

  int results() const { return gated ? columns / 2 : columns; }
};

// y (rows, results) = activation(x (rows, inner) . weights + bias), fp32. Gated, it is the first
// half so, times the second half without activation.
struct Layer {
  Weights weights;
  const float* x;
  int64_t rows;
  float* y;
};

// Some layers that do not read each other. Their pieces are shared out together: one small layer
// after the other would leave most threads without work. False if memory is short.
bool linear(const Parallel& parallel, const Layer* layers, int64_t count);

// y (inner) = the weights of one column, fp32.
void column(const Weights& weights, int64_t index, float* y);

}  // namespace lepton
