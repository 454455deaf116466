// Attention over keys and values that lie anywhere, in parallel: in fp32, or in small integers.
#pragma once
#include <cstdint>

#include "../../toolchain/csrc/parallel.h"

namespace lepton {

// A tensor (batch, heads, length, head_dim): one number of a head after the other, the rest by
// distances in numbers.
template <class T>
struct HeadsOf {
  T* data;
  int64_t batch, head, token;

  T* at(int64_t b, int64_t h, int64_t t) const { return data + b * batch + h * head + t * token; }
};

using Heads = HeadsOf<float>;

// What keys and values are: floats, or halves (fp16) or bytes (bytes.h), which are widened as they are read.
enum class Kept { floats, halves, bytes };

constexpr Kept kept_as(const float*) { return Kept::floats; }
constexpr Kept kept_as(const uint16_t*) { return Kept::halves; }
constexpr Kept kept_as(const int8_t*) { return Kept::bytes; }

// Keys or values.
struct Stored {
  const void* data;
  int64_t batch, head, token;
  Kept kept;

  template <class T>
  Stored(const HeadsOf<T>& of)
      : data(of.data), batch(of.batch), head(of.head), token(of.token), kept(kept_as(of.data)) {}

  // T is what they are.
  template <class T> const T* at(int64_t b, int64_t h, int64_t t) const {
    return static_cast<const T*>(data) + b * batch + h * head + t * token;
  }
};

// Numbers that are added to scores (batch, head, query, key): one key after the other, the rest by
// distances in floats, 0 along an axis whose numbers are the same everywhere.
struct Bias {
  const float* data;  // or null
  int64_t batch, head, query;

  const float* at(int64_t b, int64_t h, int64_t q) const {
    return data + b * batch + h * head + q * query;
  }
};

struct Attention {
  int64_t rows;      // batch
  int heads, kv_heads, head_dim;  // head_dim is a multiple of 8
  int64_t queries;   // of each row
  Heads query;
  Stored key, value;
  Heads output;
  float scale;
  float softcap;     // 0: none
  int64_t window;    // keys in sight, the own one included, and where not causal as many behind; -1: all
  bool causal;
  const int64_t* keys;      // of each row: how many there are
  const int64_t* offset;    // of each row: position of its first query
  const int32_t* mask;      // (rows, mask_length), 0 hides a key; or null
  int64_t mask_length;
  Bias bias = {};
  bool rounded = false;     // many queries: products of small integers (rounded.h)
  const int64_t* filled = nullptr;  // of each row: new tokens that are no padding; or null
  const float* sinks = nullptr;     // of each head: a score without a value; or null
};

// False if memory is short. A query that sees no key gets zeros.
bool attend(const Parallel& parallel, const Attention& a);

}  // namespace lepton
