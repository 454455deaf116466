// What attention is given: operands of queries, keys and values, a bias, attributes.
#pragma once
#include <initializer_list>

#include "../../toolchain/csrc/ort_op.h"
#include "attention.h"

namespace lepton {
namespace {

constexpr int64_t kMostHeads = 4096;

// Heads inside of rows (batch, tokens, width), from column `column` on.
inline Heads inside(float* data, int64_t tokens, int64_t width, int64_t column, int64_t head_dim) {
  return {data + column, tokens * width, head_dim, width};
}

// query, key and value of the new tokens, apart or side by side.
struct Inputs {
  Operand query, key, value;
  int64_t tokens = 0, keys = 0, head_dim = 0;
  bool shared = false;  // the cache has all keys and values, those of the new tokens, too
  Heads q{}, k{}, v{};

  // `apart`: key and value are of another text, as long as they are.
  OrtStatus* read(const OrtApi* api, const OrtKernelContext* context, int64_t heads,
                  int64_t kv_heads, bool apart) {
    if (OrtStatus* s = input(api, context, 0, &query)) return s;
    if (OrtStatus* s = input(api, context, 1, &key)) return s;
    if (OrtStatus* s = input(api, context, 2, &value)) return s;
    const bool packed = key.rank == 0;  // left out; one of no tokens has no data either
    if (query.rank != 3 || packed != (value.rank == 0)) {
      return wrong(api, "query has to have 3 axes, key and value stand together or not at all");
    }
    const int64_t parts = packed ? heads + 2 * kv_heads : heads, width = query.last();
    tokens = keys = query.dims[1];
    head_dim = width / parts;
    if (width % parts != 0 || head_dim % 8 != 0 || head_dim == 0) {
      return wrong(api, "the width of a head has to be a multiple of 8");
    }
    float* data = query.as<float>();
    q = inside(data, tokens, width, 0, head_dim);
    if (packed) {
      k = inside(data, tokens, width, heads * head_dim, head_dim);
      v = inside(data, tokens, width, (heads + kv_heads) * head_dim, head_dim);
      return nullptr;
    }
    if (apart && key.rank == 4) return read_heads(api, kv_heads);
    shared = !apart && key.rank == 3 && key.dims[1] == 0 && tokens > 0;
    if (apart && key.rank == 3) keys = key.dims[1];
    for (const Operand* each : {&key, &value}) {
      if (each->rank != 3 || each->dims[0] != query.dims[0] ||
          each->dims[1] != (shared ? 0 : keys) ||
          each->dims[2] != kv_heads * head_dim) {
        return wrong(api, "key or value do not fit query");
      }
    }
    k = inside(key.as<float>(), keys, kv_heads * head_dim, 0, head_dim);
    v = inside(value.as<float>(), keys, kv_heads * head_dim, 0, head_dim);
    return nullptr;
  }

  // Keys and values as (batch, heads, keys, head_dim).
  OrtStatus* read_heads(const OrtApi* api, int64_t heads) {
    keys = key.dims[2];
    for (const Operand* each : {&key, &value}) {
      if (each->rank != 4 || each->dims[0] != query.dims[0] || each->dims[1] != heads ||
          each->dims[2] != keys || each->dims[3] != head_dim) {
        return wrong(api, "key or value do not fit query");
      }
    }
    k = {key.as<float>(), heads * keys * head_dim, keys * head_dim, head_dim};
    v = {value.as<float>(), k.batch, k.head, k.token};
    return nullptr;
  }
};

// A bias of scores, checked; all of it is read, from the first query on.
inline OrtStatus* read_bias(const OrtApi* api, const OrtKernelContext* context, size_t index,
                     const int64_t (&sizes)[4], Bias* bias) {
  Operand given;
  if (OrtStatus* s = input(api, context, index, &given)) return s;
  *bias = {given.as<float>(), 0, 0, 0};
  if (given.data == nullptr) return nullptr;
  bool fits = given.rank == 4 && given.dims[3] == sizes[3];
  for (size_t i = 0; fits && i < 3; ++i) fits = given.dims[i] == 1 || given.dims[i] == sizes[i];
  if (!fits) return wrong(api, "the bias is not (batch, heads, queries, keys)");
  const int64_t query = given.dims[3], head = given.dims[2] * query, batch = given.dims[1] * head;
  bias->query = given.dims[2] == 1 ? 0 : query;
  bias->head = given.dims[1] == 1 ? 0 : head;
  bias->batch = given.dims[0] == 1 ? 0 : batch;
  return nullptr;
}

inline OrtStatus* attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t least,
                     int64_t most, int64_t* value) {
  if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, name, value)) return s;
  return *value < least || *value > most ? wrong(api, "an attribute is out of range") : nullptr;
}

// One that a node need not have: `value` stays as it is then.
inline OrtStatus* attribute_or(const OrtApi* api, const OrtKernelInfo* info, const char* name,
                               int64_t least, int64_t most, int64_t* value) {
  if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, name, value)) api->ReleaseStatus(s);
  return *value < least || *value > most ? wrong(api, "an attribute is out of range") : nullptr;
}

// Whether products are those of small integers.
inline OrtStatus* read_rounded(const OrtApi* api, const OrtKernelInfo* info, bool* rounded) {
  int64_t value = 0;
  if (OrtStatus* s = attribute_or(api, info, "rounded", INT64_MIN, INT64_MAX, &value)) return s;
  *rounded = value == 1;
  return value == 0 || value == 1 ? nullptr : wrong(api, "rounded is out of range");
}

}  // namespace
}  // namespace lepton
