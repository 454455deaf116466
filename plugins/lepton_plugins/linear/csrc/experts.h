// A mixture of experts: of each token the layers, gated or not, of those that it chose, weighed and
// summed.
#pragma once
#include <cstdint>

#include "../../toolchain/csrc/parallel.h"
#include "linear.h"

namespace lepton {

struct Experts {
  int64_t count;
  Weights gate_up, down;  // of the first; tiles and biases of the others follow

  // Tiles of one expert, in bytes.
  static int64_t stride(const Weights& w) {
    return static_cast<int64_t>(w.columns / kTile) * static_cast<int64_t>(w.shape.tile_bytes());
  }
};

// Who of the experts each token takes (tokens, chosen), and how much of each.
struct Choices {
  int64_t tokens, chosen;
  const int64_t* experts;
  const float* shares;
};

// y (tokens, width) from x (tokens, width). False if memory is short. Choices are in range.
bool mix(const Parallel& parallel, const Experts& experts, const Choices& choices, const float* x,
         float* y);

}  // namespace lepton
