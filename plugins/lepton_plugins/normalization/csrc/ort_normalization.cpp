// Normalization(x, gamma, beta?, residual?) -> y and SkipNormalization(x, skip, gamma, beta?, own?)
// -> y, sum?, over the last axis, attributes epsilon and rms.
#include "ort_normalization.h"

#include "../../toolchain/csrc/ort_op.h"
#include "normalization.h"

namespace lepton {
namespace {

template <bool Skip>
class Norm final : public Operator<Norm<Skip>> {
 public:
  static constexpr const char* kName = Skip ? "SkipNormalization" : "Normalization";
  static constexpr size_t kInputs = Skip ? 5 : 4, kOutputs = Skip ? 2 : 1;
  static OrtElementType input_type(size_t) { return ORT_FLOAT; }
  static bool optional(size_t i) { return i >= kInputs - 2; }
  static bool optional_output(size_t i) { return i == 1; }

  OrtStatus* read(const OrtApi* api, const OrtKernelInfo* info) {
    api_ = api;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "rms", &rms_)) return s;
    return api->KernelInfoGetAttribute_float(info, "epsilon", &epsilon_);
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Operand x, skip, gamma, beta, last;
    if (OrtStatus* s = input(api_, context, 0, &x)) return s;
    if (Skip) {
      if (OrtStatus* s = input(api_, context, 1, &skip)) return s;
    }
    if (OrtStatus* s = input(api_, context, kInputs - 3, &gamma)) return s;
    if (OrtStatus* s = input(api_, context, kInputs - 2, &beta)) return s;
    if (OrtStatus* s = input(api_, context, kInputs - 1, &last)) return s;
    const int64_t width = x.last();
    const Operand none, &own = Skip ? last : none, &residual = Skip ? none : last;
    if (!fits(gamma, width) || !fits(beta, width) || !fits(own, width)) {
      return wrong(api_, "gamma or beta do not fit the last axis");
    }
    if (!alike(x, skip) || !alike(x, residual)) {
      return wrong(api_, "the two sides of the sum differ in size");
    }
    Operand y = x, sum = x;
    sum.data = nullptr;
    if (OrtStatus* s = output(api_, context, 0, &y)) return s;
    if (Skip) {
      if (OrtStatus* s = optional_result(api_, context, 1, &sum)) return s;
    }
    const int64_t rows = width == 0 ? 0 : x.size() / width;
    const Normalization n{x.as<float>(), skip.as<float>(), gamma.as<float>(), beta.as<float>(),
                          y.as<float>(), sum.as<float>(), rows, width, epsilon_, rms_ != 0,
                          own.as<float>(), residual.as<float>()};
    if (n.rows > 0) normalize(SessionThreads(api_, context), n);
    return nullptr;
  }

 private:
  static bool fits(const Operand& weights, int64_t width) {
    return weights.data == nullptr || weights.size() == width;
  }
  static bool alike(const Operand& x, const Operand& other) {
    return other.data == nullptr || (other.size() == x.size() && other.last() == x.last());
  }

  const OrtApi* api_ = nullptr;
  int64_t rms_ = 0;
  float epsilon_ = 0;
};

}  // namespace

const OrtCustomOp* normalization_op() {
  static constexpr OrtCustomOp op = describe<Norm<false>>();
  return &op;
}

const OrtCustomOp* skip_normalization_op() {
  static constexpr OrtCustomOp op = describe<Norm<true>>();
  return &op;
}

}  // namespace lepton
