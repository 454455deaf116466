// What attention takes its time for, in the lanes of a processor. All kinds of processors
// give the same numbers to the last bit.
#pragma once
#include <cstdint>

namespace lepton {

constexpr int kKeys = 64;           // keys of a block
constexpr int kFew = 8;             // rows that are not worth transposing keys for
constexpr float kNone = -3.0e38f;  // the score of a key out of sight; the maximum of nothing

// Rows of a matrix, so many numbers apart.
template <class T>
struct MatrixOf {
  const T* first;
  int64_t row;

  MatrixOf from(int i) const { return {first + i * row, row}; }
};

using Matrix = MatrixOf<float>;
using Halves = MatrixOf<uint16_t>;  // fp16
using Bytes = MatrixOf<int8_t>;     // bytes.h

struct Size {
  int rows, inner, columns;
};

// y (rows, columns) = x . w in small integers: rows of x lie x_row integers apart, those of w, which
// have several integers for each column, w_row.
struct RoundedProduct {
  int rows, inner, columns;
  const void* x;
  int64_t x_row;
  const float* x_scale;  // of each row
  const void* w;
  int64_t w_row;
  const float* w_scale;  // of each column
  float* y;
  int64_t y_row;
};

// Rows of scores, kKeys apart, with what was known of each: the largest score and the sum of weights so
// far. `factor` is what sums and totals of before are worth now. Arrays are padded to a multiple of 8.
struct Scores {
  int rows, count;  // count: a multiple of 8
  float* first;
  float *maximum, *sum, *factor;
};

struct AttentionForm {
  // y (rows, columns) (+)= x (rows, inner) . w (inner, columns); columns are a multiple of 8.
  void (*multiply)(const Size& size, const Matrix& x, const Matrix& w, bool add, float* y,
                   int64_t y_row);
  // For few rows: keys and values are read once, as they lie, some from memory.
  // scores (rows, kKeys) = query (rows, inner) . keys (columns, inner)
  void (*multiply_few)(const Size& size, const float* query, const Matrix& keys, float* scores);
  void (*multiply_few_halves)(const Size& size, const float* query, const Halves& keys,
                              float* scores);
  void (*multiply_few_bytes)(const Size& size, const int16_t* words, const float* scale,
                             const Bytes& keys, float* scores);
  // total (rows, columns) += scores (rows, kKeys) . values (inner, columns)
  void (*add_few)(const Size& size, const float* scores, const Matrix& values, float* total);
  void (*add_few_halves)(const Size& size, const float* scores, const Halves& values,
                         float* total);
  void (*add_few_bytes)(const Size& size, const float* scores, const Bytes& values, float* total);
  // s = cap * tanh(s / cap), a multiple of 8
  void (*soften)(float cap, int count, float* s);
  // Scores become weights, in place: e^(s - maximum), 0 for kNone.
  void (*weigh)(const Scores& scores);
  // y = x . w of 12 bits, two to a column
  void (*multiply_words)(const RoundedProduct& p);
  // y += x . w of 7 bits, four to a column; `inner` is a multiple of 8
  void (*multiply_bytes)(const RoundedProduct& p);
  // s *= scale, a multiple of 8, and to bytes. Returns the scale of these.
  float (*round_weights)(float* s, const float* scale, int count, uint8_t* bytes);
};

AttentionForm avx2_attention();
AttentionForm avx512_attention();

// That of this processor.
AttentionForm attention_form();

}  // namespace lepton
