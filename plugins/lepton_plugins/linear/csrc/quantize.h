// Activations, rounded as they come, with a scale for each block: tiles.h says to what.
#pragma once
#include <cstdint>

#include "tiles.h"

namespace lepton {

// One row, x (inner), to its place among `rows` interleaved ones; the pointers are at its first
// number.
void quantize_row(Shape shape, const float* x, int rows, int8_t* numbers, float* scale,
                  int32_t* start);

}  // namespace lepton
