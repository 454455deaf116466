#include "products.h"

#include "../../toolchain/csrc/lanes.h"
#include "transpose.h"

namespace lepton {
namespace {

int whole(int count) { return (count + 7) / 8 * 8; }

// scores (rows, kKeys) from keys that were turned over.
void scores_of_block(const Attention& a, const Rows& r, const float* key, int count) {
  transpose(key, a.key.token, count, a.head_dim, r.keys);
  const int padded = whole(count);
  r.form.multiply({r.count, a.head_dim, padded}, {r.query, a.head_dim}, {r.keys, kKeys}, false,
                  r.scores, kKeys);
}

// Values of a block one behind the other: rows of several heads lie a power of two apart, or nearly,
// and drive each other out of the first cache.
const float* gather(const Attention& a, const Rows& r, const float* value, int count) {
  const int head_dim = a.head_dim;
  if (a.value.token == head_dim) return value;
  for (int j = 0; j < count; ++j) {
    for (int d = 0; d < head_dim; d += 8) {
      _mm256_storeu_ps(r.values + j * head_dim + d, _mm256_loadu_ps(value + j * a.value.token + d));
    }
  }
  return r.values;
}

// total (rows, head_dim) += weights . values
void add_values_of_block(const Attention& a, const Rows& r, const float* value, int count) {
  value = gather(a, r, value, count);
  r.form.multiply({r.count, count, a.head_dim}, {r.scores, kKeys}, {value, a.head_dim}, true,
                  r.total, a.head_dim);
}

RoundedBlock block_of(const Attention& a, const Rows& r, const KeysInSight& keys) {
  return r.rounded->at(keys.batch * a.kv_heads + keys.kv_head, keys.start / kKeys);
}

void scores_of_rounded(const Attention& a, const Rows& r, const KeysInSight& keys) {
  const RoundedBlock b = block_of(a, r, keys);
  const int from = static_cast<int>(keys.start % kKeys);
  const int width = static_cast<int>(padded_width(a.head_dim));
  r.form.multiply_words({r.count, width, whole(keys.count), r.words, width, r.scale,
                         b.keys + 2 * from, 2 * kKeys, b.key_scale + from, r.scores, kKeys});
}

void add_rounded_values(const Attention& a, const Rows& r, const KeysInSight& keys) {
  const RoundedBlock b = block_of(a, r, keys);
  const int from = static_cast<int>(keys.start % kKeys), count = whole(keys.count);
  for (int i = 0; i < r.count; ++i) {
    r.weight_scale[i] = r.form.round_weights(r.scores + i * kKeys, b.value_scale + from, count,
                                             r.bytes + i * kKeys);
  }
  r.form.multiply_bytes({r.count, count, a.head_dim, r.bytes, kKeys, r.weight_scale,
                         b.values + from * a.head_dim, 4 * a.head_dim, nullptr, r.total,
                         a.head_dim});
}

}  // namespace

void multiply_keys(const Attention& a, const Rows& r, const KeysInSight& keys) {
  if (r.kind == Kind::rounded) return scores_of_rounded(a, r, keys);
  const float* key = a.key.at(keys.batch, keys.kv_head, keys.start);
  if (r.kind == Kind::few) {
    return r.form.multiply_few({r.count, a.head_dim, keys.count}, r.query, {key, a.key.token},
                               r.scores);
  }
  scores_of_block(a, r, key, keys.count);
}

void add_values(const Attention& a, const Rows& r, const KeysInSight& keys) {
  if (r.kind == Kind::rounded) return add_rounded_values(a, r, keys);
  const float* value = a.value.at(keys.batch, keys.kv_head, keys.start);
  if (r.kind == Kind::few) {
    return r.form.add_few({r.count, keys.count, a.head_dim}, r.scores, {value, a.value.token},
                          r.total);
  }
  add_values_of_block(a, r, value, keys.count);
}

}  // namespace lepton
