// GroupQueryAttention(query, key?, value?, past_key, past_value, seqlens_k, total_sequence_length,
// cos_cache?, sin_cache?, query_norm?, key_norm?, kept?, attention_bias?, tokens?, sinks?), with the
// meaning that onnxruntime's operator of this name has. Without key and value, query holds all three side by
// side, in this order. A bias (1 or batch, 1 or heads, 1 or queries, keys) is added to scores; it alone
// says then which keys a query sees. Weights of norms (head_dim) are of an RMS norm of each head, in
// front of the rotary embedding. `kept` is how many of the last queries are wanted, 0 for all: the
// result has so many, while keys and values of all go to the cache. Key and value of no tokens leave
// the cache as it is, that of another layer, and nothing is made of it; no norm of keys is needed
// then, and query may hold the last of the new tokens alone, of which there are `tokens`. Sinks (heads)
// are scores beside those of the keys, without a value. Caches are of floats, of halves (fp16), or of bytes with scales, which make their rows longer (bytes.h).
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "../../normalization/csrc/normalization.h"
#include "bytes.h"
#include "halves.h"
#include "ort_attention.h"
#include "ort_inputs.h"

namespace lepton {
namespace {

constexpr int64_t kShort = 16;  // tokens that are not worth a second thread to turn
constexpr int64_t kMostNormed = 1024;  // width of a head with a norm, or made of halves or bytes
static_assert(kMostNormed == kMostBytes, "the scales of a row of bytes have so much room");

// Angles of rotary embedding by position: cos and sin (positions, pairs).
struct Rotary {
  const float *cos, *sin;
  int64_t pairs;
  bool interleaved;

  void turn(const float* x, int64_t position, int64_t head_dim, float* y) const {
    const float *c = cos + position * pairs, *s = sin + position * pairs;
    for (int64_t i = 0; i < pairs; ++i) {
      const int64_t first = interleaved ? 2 * i : i;
      const int64_t second = interleaved ? 2 * i + 1 : i + pairs;
      const float a = x[first], b = x[second];
      y[first] = a * c[i] - b * s[i];
      y[second] = b * c[i] + a * s[i];
    }
    for (int64_t i = 2 * pairs; i < head_dim; ++i) y[i] = x[i];
  }
};

// Norms of heads; null where there are none.
struct HeadNorms {
  const float *query, *key;
  float epsilon;

  // x, or its norm in `place`.
  const float* of(const float* x, const float* gamma, int64_t head_dim, float* place) const {
    if (gamma == nullptr) return x;
    normalize_row({x, nullptr, gamma, nullptr, place, nullptr, 1, head_dim, epsilon, true}, 0);
    return place;
  }
};

// What a cache is made of.
inline void put(const float* x, int64_t width, float* y) { memcpy(y, x, width * sizeof(float)); }
inline void put(const float* x, int64_t width, uint16_t* y) {
  narrow(x, static_cast<int>(width), y);
}
inline void put(const float* x, int64_t width, int8_t* y) { narrow(x, width, y); }

// How long a row of it is.
template <class T>
constexpr int64_t row_of(int64_t width) { return sizeof(T) == 1 ? row_bytes(width) : width; }

// New keys and values go to the cache, turned; queries to memory of their own.
template <class T>
struct Append {
  const Inputs& in;
  int64_t skipped;  // new tokens in front of the queries
  int64_t first;    // query that is wanted
  HeadsOf<T> past_key, past_value, key, value;
  Heads query;
  const int64_t* past;  // length of each row
  int64_t heads, kv_heads;
  HeadNorms norms;
  Rotary rotary;

  // Keys and values each, where they are not written in place.
  void copy(int64_t unit) const {
    const int64_t b = unit / kv_heads, h = unit % kv_heads;
    const size_t bytes = past[b] * row_of<T>(in.head_dim) * sizeof(T);
    if (bytes == 0) return;  // a cache without tokens has no memory
    if (key.data != past_key.data) memcpy(key.at(b, h, 0), past_key.at(b, h, 0), bytes);
    if (value.data != past_value.data) memcpy(value.at(b, h, 0), past_value.at(b, h, 0), bytes);
  }

  // The next token comes near meanwhile: its sum of squares would wait for it.
  __attribute__((always_inline)) void call_for(const float* x) const {
    for (int64_t i = 0; i < in.head_dim; i += 16) __builtin_prefetch(x + i);
  }

  void add(int64_t unit) const {
    const int64_t b = unit / in.tokens, t = unit % in.tokens;
    const int64_t position = past[b] + skipped + t;
    const int64_t next = t + 1 < in.tokens ? t + 1 : t;
    float normed[kMostNormed];
    for (int64_t h = 0; !in.shared && h < kv_heads; ++h) {
      call_for(in.k.at(b, h, next));
      call_for(in.v.at(b, h, next));
      const float* k = norms.of(in.k.at(b, h, t), norms.key, in.head_dim, normed);
      turn_key(k, position, key.at(b, h, position));
      put(in.v.at(b, h, t), in.head_dim, value.at(b, h, position));
    }
    for (int64_t h = 0; t >= first && h < heads; ++h) {
      call_for(in.q.at(b, h, next));
      const float* q = norms.of(in.q.at(b, h, t), norms.query, in.head_dim, normed);
      rotary.turn(q, position, in.head_dim, query.at(b, h, t - first));
    }
  }

  void turn_key(const float* k, int64_t position, float* y) const {
    rotary.turn(k, position, in.head_dim, y);
  }
  template <class Small>
  void turn_key(const float* k, int64_t position, Small* y) const {
    float turned[kMostNormed];
    rotary.turn(k, position, in.head_dim, turned);
    put(turned, in.head_dim, y);
  }
};

// One call of GroupQueryAttention: what it is given, and what it makes of it.
struct Call {
  Inputs in;
  Operand past_key, past_value, seqlens, total, cos, sin, query_norm, key_norm, kept, all, sinks;
  Operand y, present_key, present_value;
  Bias bias{};

  OrtStatus* read(const OrtApi* api, const OrtKernelContext* context, int64_t heads,
                  int64_t kv_heads) {
    if (OrtStatus* s = in.read(api, context, heads, kv_heads, false)) return s;
    Operand* const others[] = {&past_key, &past_value, &seqlens,  &total, &cos,
                               &sin,      &query_norm, &key_norm, &kept};
    for (size_t i = 0; i < 9; ++i) {
      if (OrtStatus* s = input(api, context, 3 + i, others[i])) return s;
    }
    if (OrtStatus* s = input(api, context, 13, &all)) return s;
    return input(api, context, 14, &sinks);
  }

  // Of the queries that are wanted; the lengths have been checked.
  OrtStatus* read_bias_of(const OrtApi* api, const OrtKernelContext* context, int64_t heads) {
    const int64_t sizes[] = {rows(), heads, tokens(), length()};
    if (OrtStatus* s = read_bias(api, context, 12, sizes, &bias)) return s;
    if (bias.data != nullptr) bias.data += (skipped() + first()) * bias.query;
    return nullptr;
  }

  // Memory for the results; a cache that is too short for the longest row becomes longer.
  OrtStatus* make(const OrtApi* api, OrtKernelContext* context, int64_t heads) {
    y = in.query;
    y.dims[1] = queries();
    y.dims[2] = heads * in.head_dim;
    present_key = past_key;
    present_value = past_value;
    if (OrtStatus* s = output(api, context, 0, &y)) return s;
    if (in.shared) return nothing_more(api, context);
    if (present_key.dims[2] < length()) present_key.dims[2] = length();
    present_value = present_key;
    if (OrtStatus* s = output(api, context, 1, &present_key)) return s;
    return output(api, context, 2, &present_value);
  }

  // A cache that is another layer's comes out of that layer alone.
  static OrtStatus* nothing_more(const OrtApi* api, const OrtKernelContext* context) {
    size_t count = 0;
    if (OrtStatus* s = api->KernelContext_GetOutputCount(context, &count)) return s;
    return count > 1 ? wrong(api, "a layer without keys has no cache to give") : nullptr;
  }

  int64_t rows() const { return in.query.dims[0]; }
  int64_t length() const { return *total.as<int32_t>(); }  // of the longest row

  // New tokens, and those of them whose queries are not there.
  int64_t tokens() const { return all.data == nullptr ? in.tokens : *all.as<int64_t>(); }
  int64_t skipped() const { return tokens() - in.tokens; }

  // The first query that is wanted of those that are there, and how many are.
  int64_t first() const {
    const int64_t wanted = kept.data == nullptr ? 0 : *kept.as<int64_t>();
    return wanted == 0 || wanted > in.tokens ? 0 : in.tokens - wanted;
  }
  int64_t queries() const { return in.tokens - first(); }
};

// T: float, a half, or a byte.
template <class T>
class GroupQuery final : public Operator<GroupQuery<T>> {
 public:
  static constexpr const char* kName = "GroupQueryAttention";
  static constexpr size_t kInputs = 15, kOutputs = 3;
  static constexpr bool kSmall = sizeof(T) < sizeof(float);
  static constexpr OrtElementType kCache =
      !kSmall ? ORT_FLOAT : sizeof(T) == 1 ? ORT_INT8 : ORT_FLOAT16;
  static OrtElementType input_type(size_t i) {
    if (i == 3 || i == 4) return kCache;
    return i == 5 || i == 6 ? ORT_INT32 : i == 11 || i == 13 ? ORT_INT64 : ORT_FLOAT;
  }
  static OrtElementType output_type(size_t i) { return i == 0 ? ORT_FLOAT : kCache; }
  static bool optional(size_t i) { return i == 1 || i == 2 || i > 6; }
  static bool optional_output(size_t i) { return i > 0; }

  OrtStatus* read(const OrtApi* api, const OrtKernelInfo* info) {
    api_ = api;
    int64_t rotary = 0;
    if (OrtStatus* s = attribute(api, info, "num_heads", 1, kMostHeads, &heads_)) return s;
    if (OrtStatus* s = attribute(api, info, "kv_num_heads", 1, kMostHeads, &kv_heads_)) return s;
    if (OrtStatus* s = attribute(api, info, "local_window_size", -1, INT32_MAX, &window_)) return s;
    if (OrtStatus* s = attribute(api, info, "do_rotary", 0, 1, &rotary)) return s;
    if (OrtStatus* s = attribute(api, info, "rotary_interleaved", 0, 1, &interleaved_)) return s;
    if (OrtStatus* s = read_rounded(api, info, &rounded_)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_float(info, "scale", &scale_)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_float(info, "softcap", &softcap_)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_float(info, "epsilon", &epsilon_)) return s;
    rotary_ = rotary != 0;
    return heads_ % kv_heads_ != 0 ? wrong(api, "heads are no multiple of kv heads") : nullptr;
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Call call;
    if (OrtStatus* s = call.read(api_, context, heads_, kv_heads_)) return s;
    if (OrtStatus* s = check(call)) return s;
    if (OrtStatus* s = check_options(call)) return s;
    if (OrtStatus* s = call.read_bias_of(api_, context, heads_)) return s;
    if (call.bias.data != nullptr && window_ > 0) {
      return wrong(api_, "a bias says what is seen, and goes with no window");
    }
    if (OrtStatus* s = call.make(api_, context, heads_)) return s;
    // The lengths of rows, and the turned queries behind them.
    const size_t lengths = (4 * call.rows() * sizeof(int64_t) + 63) / 64 * 64;
    const size_t queries = call.rows() * call.queries() * call.y.dims[2] * sizeof(float);
    char* memory = static_cast<char*>(malloc(lengths + queries));
    if (memory == nullptr) return api_->CreateStatus(ORT_FAIL, "out of memory");
    int64_t* past = reinterpret_cast<int64_t*>(memory);
    OrtStatus* status = lengths_of(call, past);
    if (status == nullptr) {
      status = run(context, call, past, reinterpret_cast<float*>(memory + lengths));
    }
    free(memory);
    return status;
  }

 private:
  OrtStatus* check(const Call& call) const {
    for (const Operand* each : {&call.past_key, &call.past_value}) {
      if (each->rank != 4 || each->dims[0] != call.rows() || each->dims[1] != kv_heads_ ||
          each->dims[3] != row_of<T>(call.in.head_dim) || each->dims[2] != call.past_key.dims[2]) {
        return wrong(api_, "the cache does not fit query");
      }
    }
    if (kSmall && call.in.head_dim > kMostNormed) {
      return wrong(api_, "heads are too wide for a cache of halves or bytes");
    }
    if (kCache == ORT_INT8 && call.in.head_dim % kByteBlock != 0) {
      return wrong(api_, "heads are no multiple of 32, which share a scale in a cache of bytes");
    }
    if (call.seqlens.size() != call.rows() || call.total.size() != 1) {
      return wrong(api_, "seqlens_k or total_sequence_length have another size");
    }
    return nullptr;
  }

  // What may be left out: angles, norms, how many queries are wanted.
  OrtStatus* check_options(const Call& call) const {
    const Operand &cos = call.cos, &sin = call.sin, &kept = call.kept;
    const Operand &query = call.query_norm, &key = call.key_norm;
    const int64_t head_dim = call.in.head_dim;
    if (rotary_ != (cos.data != nullptr) || rotary_ != (sin.data != nullptr)) {
      return wrong(api_, "do_rotary and the tables of angles do not agree");
    }
    if (rotary_ && (cos.rank != 2 || sin.rank != 2 || cos.size() != sin.size() ||
                    2 * cos.last() > head_dim)) {
      return wrong(api_, "the tables of angles do not fit a head");
    }
    const bool normed = query.data != nullptr || key.data != nullptr;
    const bool keys = key.data == nullptr ? call.in.shared : key.size() == head_dim;
    if (normed && (!keys || query.size() != head_dim || query.data == nullptr ||
                   head_dim > kMostNormed)) {
      return wrong(api_, "the norms of heads do not fit a head, or one is left out");
    }
    if (kept.data != nullptr && (kept.size() != 1 || *kept.as<int64_t>() < 0)) {
      return wrong(api_, "kept is no count of queries");
    }
    if (call.sinks.data != nullptr && call.sinks.size() != heads_) {
      return wrong(api_, "there is not one sink for each head");
    }
    if (call.all.data == nullptr) return nullptr;
    if (call.all.size() != 1 || !call.in.shared || call.tokens() < call.in.tokens) {
      return wrong(api_, "tokens is less than there are queries, or keys are given, too");
    }
    return nullptr;
  }

  // past (4 rows): length of each row's cache before, and behind the new tokens; position of its
  // first wanted query; new tokens without the padding behind them, which the mask was counted for.
  OrtStatus* lengths_of(const Call& call, int64_t* past) const {
    const int64_t rows = call.rows(), tokens = call.tokens();
    for (int64_t b = 0; b < rows; ++b) {
      const int64_t last = call.seqlens.as<int32_t>()[b];
      past[b] = tokens == call.length() ? 0 : last + 1 - tokens;
      past[rows + b] = past[b] + tokens;
      past[2 * rows + b] = past[b] + call.skipped() + call.first();
      past[3 * rows + b] = last + 1 - past[b];
      if (past[b] < 0 || past[b] > call.past_key.dims[2] ||
          past[rows + b] > call.present_key.dims[2]) {
        return wrong(api_, "a row does not fit its cache");
      }
      if (call.bias.data != nullptr && past[rows + b] > call.length()) {
        return wrong(api_, "a row is longer than the bias");
      }
      if (rotary_ && past[rows + b] > call.cos.dims[0]) {
        return wrong(api_, "a position lies beyond the tables of angles");
      }
    }
    return nullptr;
  }

  OrtStatus* run(OrtKernelContext* context, const Call& call, const int64_t* past,
                 float* turned) const {
    const SessionThreads threads(api_, context);
    const Inputs& in = call.in;
    const int64_t rows = call.rows(), queries = call.queries();
    const HeadsOf<T> key = cache(call.present_key), value = cache(call.present_value);
    const Heads query = inside(turned, queries, heads_ * in.head_dim, 0, in.head_dim);
    const HeadNorms norms{call.query_norm.as<float>(), call.key_norm.as<float>(), epsilon_};
    const Rotary rotary{call.cos.as<float>(), call.sin.as<float>(),
                        rotary_ ? call.cos.last() : 0, interleaved_ != 0};
    const HeadsOf<T> past_key = cache(call.past_key), past_value = cache(call.past_value);
    Append<T> append{in,   call.skipped(), call.first(), past_key, past_value, key, value, query,
                  past, heads_,         kv_heads_,    norms,    rotary};
    if (key.data != past_key.data || value.data != past_value.data) {
      threads.run(rows * kv_heads_, [](void* user, size_t i) {
        static_cast<const Append<T>*>(user)->copy(static_cast<int64_t>(i));
      }, &append);
    }
    const auto add = [](void* user, size_t i) {
      static_cast<const Append<T>*>(user)->add(static_cast<int64_t>(i));
    };
    if (rows * in.tokens > kShort) {
      threads.run(rows * in.tokens, add, &append);
    } else {
      for (int64_t i = 0; i < rows * in.tokens; ++i) add(&append, static_cast<size_t>(i));
    }
    const Heads out = inside(call.y.as<float>(), queries, call.y.dims[2], 0, in.head_dim);
    const int heads = static_cast<int>(heads_), kv_heads = static_cast<int>(kv_heads_);
    const float scale = scale_ != 0 ? scale_ : 1 / sqrtf(static_cast<float>(in.head_dim));
    const Attention a{rows, heads, kv_heads, static_cast<int>(in.head_dim), queries, query, key,
                      value, out, scale, softcap_, window_ > 0 ? window_ : -1,
                      call.bias.data == nullptr, past + rows, past + 2 * rows, nullptr, 0,
                      call.bias, rounded_, past + 3 * rows, call.sinks.as<float>()};
    return attend(threads, a) ? nullptr : api_->CreateStatus(ORT_FAIL, "out of memory");
  }

  HeadsOf<T> cache(const Operand& c) const {
    return {c.as<T>(), kv_heads_ * c.dims[2] * c.dims[3], c.dims[2] * c.dims[3], c.dims[3]};
  }

  const OrtApi* api_ = nullptr;
  int64_t heads_ = 0, kv_heads_ = 0, window_ = -1, interleaved_ = 0;
  float scale_ = 0, softcap_ = 0, epsilon_ = 0;
  bool rotary_ = false, rounded_ = false;
};

}  // namespace

const OrtCustomOp* cached_attention_op() {
  static constexpr OrtCustomOp op = describe<GroupQuery<float>>();
  return &op;
}

const OrtCustomOp* half_cached_attention_op() {
  static constexpr OrtCustomOp op = describe<GroupQuery<uint16_t>>();
  return &op;
}

const OrtCustomOp* byte_cached_attention_op() {
  static constexpr OrtCustomOp op = describe<GroupQuery<int8_t>>();
  return &op;
}

}  // namespace lepton
