#include "products.h"

#include "bytes.h"
#include "halves.h"
#include "transpose.h"

namespace lepton {
namespace {

int whole(int count) { return (count + 7) / 8 * 8; }

// Rows of a cache that are no floats, as floats, one behind the other.
void widen_rows(const Stored& of, int head_dim, const KeysInSight& keys, float* y) {
  if (of.kept == Kept::bytes) {
    const auto* bytes = of.at<int8_t>(keys.batch, keys.kv_head, keys.start);
    return widen(bytes, of.token, keys.count, head_dim, y);
  }
  const auto* halves = of.at<uint16_t>(keys.batch, keys.kv_head, keys.start);
  widen(halves, of.token, keys.count, head_dim, y);
}

// scores (rows, kKeys) from keys that were turned over.
void scores_of_block(const Attention& a, const Rows& r, const KeysInSight& keys) {
  const int padded = whole(keys.count);
  if (a.key.kept == Kept::floats) {
    const auto* key = a.key.at<float>(keys.batch, keys.kv_head, keys.start);
    transpose(key, a.key.token, keys.count, a.head_dim, r.keys);
  } else {
    widen_rows(a.key, a.head_dim, keys, r.values);  // which no value needs by now
    transpose(r.values, a.head_dim, keys.count, a.head_dim, r.keys);
  }
  r.form.multiply({r.count, a.head_dim, padded}, {r.query, a.head_dim}, {r.keys, kKeys}, false,
                  r.scores, kKeys);
}

// Values of a block one behind the other: rows of several heads lie a power of two apart, or nearly,
// and drive each other out of the first cache.
const float* gather(const Attention& a, const Rows& r, const KeysInSight& keys) {
  const int head_dim = a.head_dim;
  if (a.value.kept != Kept::floats) {
    widen_rows(a.value, head_dim, keys, r.values);
    return r.values;
  }
  const auto* value = a.value.at<float>(keys.batch, keys.kv_head, keys.start);
  if (a.value.token == head_dim) return value;
  for (int j = 0; j < keys.count; ++j) {
    for (int d = 0; d < head_dim; d += 8) {
      _mm256_storeu_ps(r.values + j * head_dim + d, _mm256_loadu_ps(value + j * a.value.token + d));
    }
  }
  return r.values;
}

// total (rows, head_dim) += weights . values
void add_values_of_block(const Attention& a, const Rows& r, const KeysInSight& keys) {
  const float* value = gather(a, r, keys);
  r.form.multiply({r.count, keys.count, a.head_dim}, {r.scores, kKeys}, {value, a.head_dim}, true,
                  r.total, a.head_dim);
}

template <class T>
MatrixOf<T> rows_of(const Stored& of, const KeysInSight& keys) {
  return {of.at<T>(keys.batch, keys.kv_head, keys.start), of.token};
}

void scores_of_few(const Attention& a, const Rows& r, const KeysInSight& keys) {
  const Size size = {r.count, a.head_dim, keys.count};
  switch (a.key.kept) {
    case Kept::floats:
      return r.form.multiply_few(size, r.query, rows_of<float>(a.key, keys), r.scores);
    case Kept::halves:
      return r.form.multiply_few_halves(size, r.query, rows_of<uint16_t>(a.key, keys), r.scores);
    case Kept::bytes:
      return r.form.multiply_few_bytes(size, r.words, r.scale, rows_of<int8_t>(a.key, keys),
                                       r.scores);
  }
}

void add_values_of_few(const Attention& a, const Rows& r, const KeysInSight& keys) {
  const Size size = {r.count, keys.count, a.head_dim};
  switch (a.value.kept) {
    case Kept::floats:
      return r.form.add_few(size, r.scores, rows_of<float>(a.value, keys), r.total);
    case Kept::halves:
      return r.form.add_few_halves(size, r.scores, rows_of<uint16_t>(a.value, keys), r.total);
    case Kept::bytes:
      return r.form.add_few_bytes(size, r.scores, rows_of<int8_t>(a.value, keys), r.total);
  }
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
  switch (r.kind) {
    case Kind::rounded: return scores_of_rounded(a, r, keys);
    case Kind::few:
    case Kind::few_bytes: return scores_of_few(a, r, keys);
    case Kind::many: return scores_of_block(a, r, keys);
  }
}

void add_values(const Attention& a, const Rows& r, const KeysInSight& keys) {
  switch (r.kind) {
    case Kind::rounded: return add_rounded_values(a, r, keys);
    case Kind::few:
    case Kind::few_bytes: return add_values_of_few(a, r, keys);
    case Kind::many: return add_values_of_block(a, r, keys);
  }
}

}  // namespace lepton
