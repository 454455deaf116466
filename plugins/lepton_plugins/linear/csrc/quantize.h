// Activations, rounded as they come, with a scale for each block: tiles.h says to what.
#pragma once
#include <cstdint>

#include "tiles.h"

namespace lepton {

// Where a row goes, among `rows` interleaved ones: the pointers are at its first number.
struct Place {
  int rows;
  int8_t* numbers;
  float* scale;
  int32_t* start;
  float* shift;  // or null
  bool halves;   // of `start`, for 4 bits
};

// One row, x (inner). With an `order` (inner), of 4 bits alone, number i is x[order[i]].
void quantize_row(Shape shape, const float* x, const int32_t* order, const Place& to);

}  // namespace lepton
