// QuantizedExperts(x, indices, shares, gate_up, down, gate_up_bias?, down_bias?): K is the width of a token, N that between the two layers of an expert, whose tiles
// lie one expert behind the other.
#include "ort_experts.h"

#include "../../toolchain/csrc/ort_op.h"
#include "experts.h"

namespace lepton {
namespace {

constexpr int64_t kMost = 1 << 24;

class Mixture final : public Operator<Mixture> {
 public:
  static constexpr const char* kName = "QuantizedExperts";
  static constexpr size_t kInputs = 7, kOutputs = 1;
  static bool optional(size_t i) { return i >= 5; }
  static OrtElementType input_type(size_t i) {
    const bool packed = i == 3 || i == 4;
    return i == 1 ? ORT_INT64 : packed ? ORT_UINT8 : ORT_FLOAT;
  }

  OrtStatus* read(const OrtApi* api, const OrtKernelInfo* info) {
    api_ = api;
    const char* const names[] = {"K", "N", "experts", "bits", "block_size", "down_block_size",
                                 "activation", "gated", "offsets", "down_offsets", "floats"};
    int64_t given[11];
    for (int i = 0; i < 11; ++i) {
      if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, names[i], given + i)) return s;
      if (given[i] < 0 || given[i] > kMost) return wrong(api, "an attribute is out of range");
    }
    const int64_t width = given[0], inner = given[1], bits = given[3], activation = given[6];
    experts_.count = given[2];
    if (experts_.count < 1 || (bits != 4 && bits != 8) || activation > 4) {
      return wrong(api, "experts, bits or activation are out of range");
    }
    if (width < kTile || inner < kTile || width % kTile != 0 || inner % kTile != 0) {
      return wrong(api, "K and N have to be multiples of 16");
    }
    if (given[10] != 0 && (bits != 4 || given[8] != 0 || given[9] != 0)) {
      return wrong(api, "floats are of 4 bits, without offsets");
    }
    if (OrtStatus* s = shape(width, bits, given[4], given[8], &experts_.gate_up.shape)) return s;
    if (OrtStatus* s = shape(inner, bits, given[5], given[9], &experts_.down.shape)) return s;
    experts_.gate_up.shape.floats = experts_.down.shape.floats = given[10] != 0;
    experts_.gate_up.columns = static_cast<int>(given[7] != 0 ? 2 * inner : inner);
    experts_.gate_up.activation = static_cast<Activation>(activation);
    experts_.gate_up.gated = given[7] != 0;
    experts_.down.columns = static_cast<int>(width);
    Gate& gate = experts_.gate_up.gate;
    if (OrtStatus* s = api->KernelInfoGetAttribute_float(info, "alpha", &gate.alpha)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_float(info, "limit", &gate.limit)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_float(info, "beta", &gate.beta)) return s;
    const bool silu = experts_.gate_up.activation == Activation::kSilu;
    if (!gate.plain() && !(silu && experts_.gate_up.gated)) {
      return wrong(api, "alpha, limit and beta are for a gate of SiLU");
    }
    return nullptr;
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Operand given[kInputs];
    for (size_t i = 0; i < kInputs; ++i) {
      if (OrtStatus* s = input(api_, context, i, given + i)) return s;
    }
    const Operand &x = given[0], &indices = given[1], &shares = given[2];
    const int64_t width = experts_.down.columns;
    if (x.rank != 2 || x.last() != width || indices.rank != 2 || indices.dims[0] != x.dims[0] ||
        shares.size() != indices.size()) {
      return wrong(api_, "x, indices and shares do not fit each other");
    }
    Experts experts = experts_;
    if (OrtStatus* s = read_layer(given[3], given[5], &experts.gate_up)) return s;
    if (OrtStatus* s = read_layer(given[4], given[6], &experts.down)) return s;
    const int64_t* chosen = indices.as<int64_t>();
    for (int64_t i = 0; i < indices.size(); ++i) {
      if (chosen[i] < 0 || chosen[i] >= experts.count) {
        return wrong(api_, "a choice lies outside the experts");
      }
    }
    Operand y = x;
    if (OrtStatus* s = output(api_, context, 0, &y)) return s;
    const Choices choices{x.dims[0], indices.last(), chosen, shares.as<float>()};
    const bool done = mix(SessionThreads(api_, context), experts, choices, x.as<float>(),
                          y.as<float>());
    return done ? nullptr : api_->CreateStatus(ORT_FAIL, "out of memory");
  }

 private:
  OrtStatus* shape(int64_t inner, int64_t bits, int64_t group, int64_t offsets, Shape* made) const {
    const int64_t unit = bits == 4 ? 32 : 8;
    if (group < unit || group % unit != 0 || inner % group != 0) {
      return wrong(api_, "a block has to divide its rows, and to be a multiple of 32 for 4 bits, of 8 for 8");
    }
    *made = {static_cast<int>(bits), static_cast<int>(inner), static_cast<int>(group), offsets != 0};
    return nullptr;
  }

  OrtStatus* read_layer(const Operand& packed, const Operand& bias, Weights* weights) const {
    if (packed.size() != experts_.count * Experts::stride(*weights)) {
      return wrong(api_, "the tiles have another size than the experts say");
    }
    weights->tiles = packed.as<uint8_t>();
    if (bias.data != nullptr && bias.size() != experts_.count * weights->columns) {
      return wrong(api_, "a bias has another size than the experts say");
    }
    weights->bias = bias.as<float>();
    return nullptr;
  }

  const OrtApi* api_ = nullptr;
  Experts experts_ = {};
};

}  // namespace

const OrtCustomOp* experts_op() {
  static constexpr OrtCustomOp op = describe<Mixture>();
  return &op;
}

}  // namespace lepton
