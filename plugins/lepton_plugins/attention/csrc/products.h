// The two products of attention, over one block of keys: by few rows, by many, in small integers.
#pragma once
#include "rows.h"

namespace lepton {

// Keys [start, start + count) of a head, within one block.
struct KeysInSight {
  int64_t batch;
  int kv_head;
  int64_t start;
  int count;
};

// scores = query . keys
void multiply_keys(const Attention& a, const Rows& r, const KeysInSight& keys);

// total += weights . values
void add_values(const Attention& a, const Rows& r, const KeysInSight& keys);

}  // namespace lepton
