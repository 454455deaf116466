// LinearAttention(query, key, value, past, decay, beta?) -> y, present, attribute scale. How many
// heads there are is what the shape of past says.
#include "ort_linear_attention.h"

#include <initializer_list>

#include "../../toolchain/csrc/ort_op.h"
#include "linear_attention.h"

namespace lepton {
namespace {

struct Inputs {
  Operand query, key, value, past, decay, beta;

  OrtStatus* read(const OrtApi* api, const OrtKernelContext* context) {
    size_t index = 0;
    for (Operand* each : {&query, &key, &value, &past, &decay, &beta}) {
      if (OrtStatus* s = input(api, context, index++, each)) return s;
    }
    return nullptr;
  }
};

class Recurrent final : public Operator<Recurrent> {
 public:
  static constexpr const char* kName = "LinearAttention";
  static constexpr size_t kInputs = 6, kOutputs = 2;
  static OrtElementType input_type(size_t) { return ORT_FLOAT; }
  static bool optional(size_t i) { return i == 5; }

  OrtStatus* read(const OrtApi* api, const OrtKernelInfo* info) {
    api_ = api;
    return api->KernelInfoGetAttribute_float(info, "scale", &scale_);
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Inputs in;
    if (OrtStatus* s = in.read(api_, context)) return s;
    if (const char* what = unfit(in)) return wrong(api_, what);
    Operand y = in.value, present = in.past;
    if (OrtStatus* s = output(api_, context, 0, &y)) return s;
    if (OrtStatus* s = output(api_, context, 1, &present)) return s;
    const int64_t *d = in.past.dims, depth = d[2];
    const LinearAttention a{
        in.query.as<float>(), in.key.as<float>(), in.value.as<float>(), in.past.as<float>(),
        in.decay.as<float>(), in.beta.as<float>(), y.as<float>(), present.as<float>(), d[0],
        in.value.dims[1], in.query.last() / depth, in.key.last() / depth, d[1], depth, d[3], scale_,
        in.decay.last() != d[1]};
    attend_linearly(SessionThreads(api_, context), a);
    return nullptr;
  }

 private:
  // What is wrong with the shapes; null where nothing is.
  static const char* unfit(const Inputs& in) {
    const Operand& past = in.past;
    if (past.rank != 4) return "past has to be (batch, heads, depth, width)";
    const int64_t heads = past.dims[1], depth = past.dims[2];
    if (depth < 1 || depth > kMostDepth) return "keys have to have 1 to 512 numbers";
    for (const Operand* each : {&in.query, &in.key, &in.value, &in.decay, &in.beta}) {
      if (each->data != nullptr && (each->rank != 3 || each->dims[0] != past.dims[0] ||
                                    each->dims[1] != in.value.dims[1])) {
        return "an input is not (batch, sequence, ..) as the others";
      }
    }
    for (const Operand* each : {&in.query, &in.key}) {
      const int64_t shared = each->last() / depth;
      if (each->last() % depth != 0 || shared == 0 || heads % shared != 0) {
        return "the heads of past are no multiple of those of query or key";
      }
    }
    if (in.value.last() != heads * past.dims[3]) return "value does not fit past";
    if (in.decay.last() != heads && in.decay.last() != heads * depth) {
      return "decay has neither one number for each head nor one for each of its keys'";
    }
    if (in.beta.data != nullptr && in.beta.last() != heads) {
      return "beta has not one number for each head";
    }
    return nullptr;
  }

  const OrtApi* api_ = nullptr;
  float scale_ = 1;
};

}  // namespace

const OrtCustomOp* linear_attention_op() {
  static constexpr OrtCustomOp op = describe<Recurrent>();
  return &op;
}

}  // namespace lepton
