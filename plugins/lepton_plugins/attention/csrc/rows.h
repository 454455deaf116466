// Rows of queries against some keys: what is known of them while keys go by.
#pragma once
#include "attention.h"
#include "form.h"
#include "rounded.h"

namespace lepton {

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// Few rows are multiplied along the keys as they lie, of many a block of keys is turned over first.
enum class Kind { few, few_bytes, many, rounded };

struct Rows {
  int count;
  int64_t first;         // position in the row's queries of row 0
  int group;             // heads that share keys: row r is query first + r / group, head r % group
  Kind kind;
  float* total;          // (count, head_dim), values weighted so far
  float* maximum;
  float* sum;
  float* factor;         // of both and `total`, when a larger maximum comes up
  float* scores;         // (count, kKeys); then weights
  float* query;          // (count, head_dim), scaled
  float* keys;           // (head_dim, kKeys); many
  float* values;         // (kKeys, head_dim); many
  const RoundedKeys* rounded;  // and what follows; else null
  int16_t* words;        // (count, padded width), in place of `query`
  float* scale;          // of queries
  uint8_t* bytes;        // (count, kKeys), weights
  float* weight_scale;
  AttentionForm form = attention_form();
};

// Floats that they take, and rows in so many.
int64_t floats_of(int count, int head_dim, Kind kind);
Rows rows_in(float* memory, int count, int head_dim, int group, int64_t first, Kind kind);

// Keys that a query sees: from `from` on, up to and without `to`.
struct Sight {
  int64_t from, to;
};

Sight sight(const Attention& a, int64_t batch, int64_t query);

// Of no keys.
void begin(const Attention& a, int64_t batch, int kv_head, const Rows& r);

// All keys of [from, to) that any of the rows sees. Blocks end at multiples of their size and begin
// with whole vectors, whatever is in sight: so a query gets the same numbers to the last bit whether
// those before it are read in the same call or were in an earlier one.
void look(const Attention& a, int64_t batch, int kv_head, const Rows& r, int64_t from, int64_t to);

// Results go to where they belong.
void finish(const Attention& a, int64_t batch, int kv_head, const Rows& r);

}  // namespace lepton
