// CausalConv(x, taps, past, bias?) -> y, present, attribute activation.
#include "ort_convolution.h"

#include "../../toolchain/csrc/ort_op.h"
#include "convolution.h"

namespace lepton {
namespace {

class CausalConv final : public Operator<CausalConv> {
 public:
  static constexpr const char* kName = "CausalConv";
  static constexpr size_t kInputs = 4, kOutputs = 2;
  static OrtElementType input_type(size_t) { return ORT_FLOAT; }
  static bool optional(size_t i) { return i == 3; }

  OrtStatus* read(const OrtApi* api, const OrtKernelInfo* info) {
    api_ = api;
    int64_t activation = 0;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "activation", &activation)) return s;
    if (activation < 0 || activation > 1) return wrong(api, "activation has to be 0 or 1");
    silu_ = activation == 1;
    return nullptr;
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Operand x, taps, past, bias;
    if (OrtStatus* s = input(api_, context, 0, &x)) return s;
    if (OrtStatus* s = input(api_, context, 1, &taps)) return s;
    if (OrtStatus* s = input(api_, context, 2, &past)) return s;
    if (OrtStatus* s = input(api_, context, 3, &bias)) return s;
    if (x.rank != 3) return wrong(api_, "x has to have 3 axes");
    const int64_t batch = x.dims[0], channels = x.dims[2];
    if (taps.rank != 2 || taps.dims[1] != channels) {
      return wrong(api_, "the taps do not fit the channels of x");
    }
    const int64_t count = taps.dims[0];
    if (count < 1 || count > kMostTaps) return wrong(api_, "there have to be 1 to 64 taps");
    if (past.rank != 3 || past.dims[0] != batch || past.dims[1] != channels ||
        past.dims[2] != count - 1) {
      return wrong(api_, "past has to be (batch, channels, taps - 1)");
    }
    if (bias.data != nullptr && bias.size() != channels) {
      return wrong(api_, "the bias does not fit the channels of x");
    }
    Operand y = x, present = past;
    if (OrtStatus* s = output(api_, context, 0, &y)) return s;
    if (OrtStatus* s = output(api_, context, 1, &present)) return s;
    convolve(SessionThreads(api_, context),
             {x.as<float>(), taps.as<float>(), past.as<float>(), bias.as<float>(), y.as<float>(),
              present.as<float>(), batch, x.dims[1], channels, count, silu_});
    return nullptr;
  }

 private:
  const OrtApi* api_ = nullptr;
  bool silu_ = false;
};

}  // namespace

const OrtCustomOp* convolution_op() {
  static constexpr OrtCustomOp op = describe<CausalConv>();
  return &op;
}

}  // namespace lepton
