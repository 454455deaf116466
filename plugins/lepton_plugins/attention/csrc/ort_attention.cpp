// MultiHeadAttention(query, key?, value?, key_padding_mask?, attention_bias?), with the meaning that
// onnxruntime's operator of this name has. Without key and value, query holds all three side by side,
// in this order; those may be of another text, and of another length, and laid out in heads as a cache
// is. A bias (1 or batch, 1 or heads, 1 or queries, keys) is added to scores. Three attributes are ours:
// kv_num_heads, fewer heads of keys that queries share; softcap; and window, of keys that are less than so
// many places away, before a query and, unless unidirectional, behind it.
#include "ort_attention.h"

#include <cmath>

#include "ort_inputs.h"

namespace lepton {
namespace {

class MultiHead final : public Operator<MultiHead> {
 public:
  static constexpr const char* kName = "MultiHeadAttention";
  static constexpr size_t kInputs = 5, kOutputs = 1;
  static OrtElementType input_type(size_t i) { return i == 3 ? ORT_INT32 : ORT_FLOAT; }
  static bool optional(size_t i) { return i > 0; }

  OrtStatus* read(const OrtApi* api, const OrtKernelInfo* info) {
    api_ = api;
    if (OrtStatus* s = attribute(api, info, "num_heads", 1, kMostHeads, &heads_)) return s;
    if (OrtStatus* s = attribute(api, info, "unidirectional", 0, 1, &causal_)) return s;
    if (OrtStatus* s = read_rounded(api, info, &rounded_)) return s;
    kv_heads_ = heads_;
    if (OrtStatus* s = attribute_or(api, info, "kv_num_heads", 1, heads_, &kv_heads_)) return s;
    if (OrtStatus* s = attribute_or(api, info, "window", -1, INT32_MAX, &window_)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_float(info, "softcap", &softcap_)) {
      api->ReleaseStatus(s);
    }
    if (heads_ % kv_heads_ != 0) return wrong(api, "heads are no multiple of kv heads");
    return api->KernelInfoGetAttribute_float(info, "scale", &scale_);
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Inputs in;
    Operand mask;
    if (OrtStatus* s = in.read(api_, context, heads_, kv_heads_, true)) return s;
    if (OrtStatus* s = input(api_, context, 3, &mask)) return s;
    const int64_t rows = in.query.dims[0];
    if (mask.data != nullptr && (mask.rank != 2 || mask.size() != rows * in.keys)) {
      return wrong(api_, "the mask is not (batch, keys)");
    }
    Bias bias;
    const int64_t sizes[] = {rows, heads_, in.tokens, in.keys};
    if (OrtStatus* s = read_bias(api_, context, 4, sizes, &bias)) return s;
    Operand y = in.query;
    y.dims[2] = heads_ * in.head_dim;
    if (OrtStatus* s = output(api_, context, 0, &y)) return s;
    int64_t* lengths = static_cast<int64_t*>(malloc(2 * sizeof(int64_t) * (rows + 1)));
    if (lengths == nullptr) return api_->CreateStatus(ORT_FAIL, "out of memory");
    for (int64_t b = 0; b < rows; ++b) {
      lengths[b] = in.keys;
      lengths[rows + b] = 0;
    }
    const int heads = static_cast<int>(heads_), kv_heads = static_cast<int>(kv_heads_);
    const int head_dim = static_cast<int>(in.head_dim);
    const Heads out = inside(y.as<float>(), in.tokens, y.dims[2], 0, in.head_dim);
    const float scale = scale_ != 0 ? scale_ : 1 / sqrtf(static_cast<float>(in.head_dim));
    const Attention a{rows, heads, kv_heads, head_dim, in.tokens, in.q, in.k, in.v, out, scale,
                      softcap_, window_ > 0 ? window_ : -1, causal_ != 0, lengths, lengths + rows,
                      mask.as<int32_t>(), in.keys, bias, rounded_};
    const bool done = attend(SessionThreads(api_, context), a);
    free(lengths);
    return done ? nullptr : api_->CreateStatus(ORT_FAIL, "out of memory");
  }

 private:
  const OrtApi* api_ = nullptr;
  int64_t heads_ = 0, kv_heads_ = 0, causal_ = 0, window_ = -1;
  float scale_ = 0, softcap_ = 0;
  bool rounded_ = false;
};

}  // namespace

const OrtCustomOp* attention_op() {
  static constexpr OrtCustomOp op = describe<MultiHead>();
  return &op;
}

}  // namespace lepton
