// Layer and RMS normalization of rows, sums with a residual in front of it and behind it inside.
#pragma once
#include <cstdint>

#include "../../toolchain/csrc/parallel.h"

namespace lepton {

struct Normalization {
  const float* x;
  const float* skip;      // added to x first; or null
  const float* gamma;     // (width)
  const float* beta;      // (width); or null
  float* y;
  float* sum;             // x + skip; or null
  int64_t rows, width;
  float epsilon;
  bool rms;               // no mean is taken off
  const float* own = nullptr;       // (width): x is normed, too, by this gamma, before skip is added
  const float* residual = nullptr;  // added to the result
};

void normalize(const Parallel& parallel, const Normalization& n);

// The same, of one row, in the thread that calls.
void normalize_row(const Normalization& n, int64_t row);

}  // namespace lepton
