// Attention in small integers, for models whose layers round what they read, too: queries and keys in
// 12 bits, with a scale for each, so that scores are as good as exact; weights and values in 7.
// What is known of a key alone rounds it, so that all calls that read it find the same numbers.
#pragma once
#include "../../toolchain/csrc/vector.h"
#include "attention.h"
#include "form.h"

namespace lepton {

namespace {

constexpr int kFewRounded = 32;  // queries that are not worth rounding keys for (spec.py has it, too)
constexpr float kLevelsOfFew = 32767.0f;  // beside bytes: 2 * 32767 * 127 is below 2^31
// 2047 * 2047 * 512 is below 2^31; 4 * 127 * 63 is below 2^15.
constexpr int kMostRounded = 512;  // width of a head
constexpr float kLevels = 2047.0f, kLevelsOfWeights = 127.0f, kLevelsOfValues = 63.0f;

struct Rounding {
  float factor, scale;
};

// The largest of some magnitudes becomes the last level. What is infinite or NaN makes all NaN; what is
// too small for a factor is 0.
inline Rounding rounding(float most, float levels) {
  if (most < 1e-30f) return {0.0f, 0.0f};
  if (!(most <= 3.4028235e38f)) return {0.0f, __builtin_nanf("")};
  return {levels / most, most / levels};
}

// A row of a multiple of 8 numbers to words of so many levels. Returns its scale.
inline float round_row(const float* x, int count, float levels, int16_t* to) {
  const Rounding how = rounding(largest_magnitude<Eight>(x, count), levels);
  for (int d = 0; d < count; d += 8) {
    store_words(Eight::load(x + d) * Eight::all(how.factor), to + d);
  }
  return how.scale;
}

inline int64_t padded_width(int head_dim) { return (head_dim + 15) / 16 * 16; }

}  // namespace

// Keys and values of one head of a batch, in blocks.
struct RoundedBlock {
  float* key_scale;    // (kKeys)
  float* value_scale;  // (kKeys)
  int16_t* keys;       // (width / 2, kKeys, 2)
  int8_t* values;      // (kKeys / 4, head_dim, 4)
};

struct RoundedKeys {
  char* memory;
  int64_t bytes, blocks;  // of a block; of a head
  int64_t first;          // block that is the first in sight
  int head_dim;

  RoundedBlock at(int64_t head, int64_t block) const {
    char* p = memory + (head * blocks + block - first) * bytes;
    auto* scales = reinterpret_cast<float*>(p);
    auto* keys = reinterpret_cast<int16_t*>(scales + 2 * kKeys);
    return {scales, scales + kKeys, keys,
            reinterpret_cast<int8_t*>(keys + padded_width(head_dim) * kKeys)};
  }
};

// Whether a row of the batch has as many queries as make it worth rounding keys for. Padding does not
// count: a text gets the numbers that it gets alone, whatever is beside it.
bool rounds(const Attention& a, int64_t batch);

// One row of numbers to 12 bits, as many as are a multiple of 16. Returns its scale.
float round_words(const float* x, int count, int16_t* to);

// False if memory is short; else `keys` has memory, which is the caller's to free.
bool round_keys(const Parallel& parallel, const Attention& a, int64_t first, int64_t end,
                RoundedKeys* keys);

}  // namespace lepton
