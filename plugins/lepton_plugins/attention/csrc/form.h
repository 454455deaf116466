// What attention of many queries takes its time for, in the lanes of a processor. All kinds of
// processors give the same numbers to the last bit.
#pragma once
#include <cstdint>

namespace lepton {

constexpr float kNone = -3.0e38f;  // the score of a key out of sight; the maximum of nothing

// Rows of a matrix, so many floats apart.
struct Matrix {
  const float* first;
  int64_t row;
};

struct Size {
  int rows, inner, columns;
};

struct AttentionForm {
  // y (rows, columns) (+)= x (rows, inner) . w (inner, columns); columns are a multiple of 8.
  void (*multiply)(const Size& size, const Matrix& x, const Matrix& w, bool add, float* y,
                   int64_t y_row);
  // s = cap * tanh(s / cap), a multiple of 8
  void (*soften)(float cap, int count, float* s);
  // s = e^(s - maximum), 0 for kNone; a multiple of 8. Returns their sum.
  float (*weights)(float* s, int count, float maximum);
};

AttentionForm avx2_attention();
AttentionForm avx512_attention();

// That of this processor.
AttentionForm attention_form();

}  // namespace lepton
