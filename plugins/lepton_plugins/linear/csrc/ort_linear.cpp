// QuantizedLinear(x, tiles, bias?, order?) and QuantizedEmbedding(tiles, ids), attributes K, N, bits
// and block_size as those of onnxruntime's MatMulNBits; offsets says whether groups have some, floats
// whether 4 bits are the codes of such.
#include "ort_linear.h"

#include "../../toolchain/csrc/ort_op.h"
#include "linear.h"

namespace lepton {
namespace {

constexpr int64_t kMostInner = 1 << 24;
constexpr int64_t kMostSummed = 1 << 17;  // products that stay in 32 bits, of 7 bits

// What both operators know of their matrix.
class Matrix {
 public:
  OrtStatus* read(const OrtApi* api, const OrtKernelInfo* info) {
    api_ = api;
    int64_t inner = 0, columns = 0, bits = 0, group = 0, offsets = 0, floats = 0;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "K", &inner)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "N", &columns)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "bits", &bits)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "block_size", &group)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "offsets", &offsets)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "floats", &floats)) return s;
    if (bits != 4 && bits != 7 && bits != 8) return wrong(api, "bits has to be 4, 7 or 8");
    const int64_t unit = bits == 4 ? 32 : 8;
    if (columns < 1 || columns > INT32_MAX || inner < 1 || inner > kMostInner) {
      return wrong(api, "K or N is out of range");
    }
    if (group < unit || group % unit != 0 || inner % group != 0) {
      return wrong(api, "block_size has to divide K, and to be a multiple of 32 for 4 bits, else of 8");
    }
    if (bits == 7 && group > kMostSummed) return wrong(api, "block_size is beyond 131,072");
    if (offsets != 0 && bits == 7) return wrong(api, "offsets are for 4 and 8 bits");
    if (floats != 0 && (bits != 4 || offsets != 0)) {
      return wrong(api, "floats are of 4 bits, without offsets");
    }
    weights_.shape = {static_cast<int>(bits), static_cast<int>(inner), static_cast<int>(group),
                      offsets != 0, floats != 0};
    weights_.columns = static_cast<int>(columns);
    return nullptr;
  }

 protected:
  OrtStatus* tiles(const OrtKernelContext* context, size_t index, Weights* weights) const {
    Operand packed;
    if (OrtStatus* s = input(api_, context, index, &packed)) return s;
    *weights = weights_;
    const int64_t count = (weights_.columns + kTile - 1) / kTile;
    const int64_t bytes = count * static_cast<int64_t>(weights_.shape.tile_bytes());
    if (packed.size() != bytes) return wrong(api_, "the tiles have another size than K and N say");
    weights->tiles = packed.as<uint8_t>();
    return nullptr;
  }

  const OrtApi* api_ = nullptr;
  Weights weights_ = {};
};

class Linear final : public Matrix, public Operator<Linear> {
 public:
  static constexpr const char* kName = "QuantizedLinear";
  static constexpr size_t kInputs = 4, kOutputs = 1;
  static bool optional(size_t i) { return i >= 2; }
  static OrtElementType input_type(size_t i) {
    return i == 3 ? ORT_INT32 : i == 1 ? ORT_UINT8 : ORT_FLOAT;
  }

  OrtStatus* read(const OrtApi* api, const OrtKernelInfo* info) {
    if (OrtStatus* s = Matrix::read(api, info)) return s;
    int64_t activation = 0, gated = 0;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "activation", &activation)) return s;
    if (OrtStatus* s = api->KernelInfoGetAttribute_int64(info, "gated", &gated)) return s;
    if (activation < 0 || activation > 4) return wrong(api, "activation has to be 0 to 4");
    if (gated != 0 && weights_.columns % (2 * kTile) != 0) {
      return wrong(api, "N of a gated layer has to be a multiple of 32");
    }
    weights_.activation = static_cast<Activation>(activation);
    weights_.gated = gated != 0;
    return nullptr;
  }

  OrtStatus* compute(OrtKernelContext* context) const {
    Operand x, bias;
    Weights weights;
    if (OrtStatus* s = input(api_, context, 0, &x)) return s;
    if (OrtStatus* s = tiles(context, 1, &weights)) return s;
    if (OrtStatus* s = input(api_, context, 2, &bias)) return s;
    if (x.rank == 0 || x.last() != weights.shape.inner) {
      return wrong(api_, "the last dimension of the input is not K");
    }
    if (bias.data != nullptr && bias.size() != weights.columns) {
      return wrong(api_, "the bias has another length than N");
    }
    weights.bias = bias.as<float>();
    if (OrtStatus* s = order(context, &weights)) return s;
    const int64_t rows = x.size() / weights.shape.inner;
    Operand y = x;
    y.dims[y.rank - 1] = weights.results();
    if (OrtStatus* s = output(api_, context, 0, &y)) return s;
    const Layer layer{weights, x.as<float>(), rows, y.as<float>()};
    const bool done = linear(SessionThreads(api_, context), &layer, 1);
    return done ? nullptr : api_->CreateStatus(ORT_FAIL, "out of memory");
  }

 private:
  OrtStatus* order(const OrtKernelContext* context, Weights* weights) const {
    Operand order;
    if (OrtStatus* s = input(api_, context, 3, &order)) return s;
    if (order.data == nullptr) return nullptr;
    if (weights->shape.bits != 4) return wrong(api_, "an order is for 4 bits");
    const int32_t inner = weights->shape.inner;
    if (order.size() != inner) return wrong(api_, "the order has another length than K");
    weights->order = order.as<int32_t>();
    for (int32_t i = 0; i < inner; ++i) {
      const int32_t place = weights->order[i];
      if (place < 0 || place >= inner) return wrong(api_, "the order leaves the input");
    }
    return nullptr;
  }
};

class Embedding final : public Matrix, public Operator<Embedding> {
 public:
  static constexpr const char* kName = "QuantizedEmbedding";
  static constexpr size_t kInputs = 2, kOutputs = 1;
  static bool optional(size_t) { return false; }
  static OrtElementType input_type(size_t i) { return i == 1 ? ORT_INT64 : ORT_UINT8; }

  OrtStatus* compute(OrtKernelContext* context) const {
    Weights weights;
    Operand ids;
    if (OrtStatus* s = tiles(context, 0, &weights)) return s;
    if (OrtStatus* s = input(api_, context, 1, &ids)) return s;
    if (ids.rank == kMostDimensions) return wrong(api_, "the ids have too many dimensions");
    Operand y = ids;
    y.dims[y.rank++] = weights.shape.inner;
    if (OrtStatus* s = output(api_, context, 0, &y)) return s;
    for (int64_t i = 0; i < ids.size(); ++i) {
      int64_t id = ids.as<int64_t>()[i];
      if (id < 0) id += weights.columns;
      if (id < 0 || id >= weights.columns) return wrong(api_, "an id lies outside the table");
      column(weights, id, y.as<float>() + i * weights.shape.inner);
    }
    return nullptr;
  }
};

}  // namespace

const OrtCustomOp* linear_op() {
  static constexpr OrtCustomOp op = describe<Linear>();
  return &op;
}

const OrtCustomOp* embedding_op() {
  static constexpr OrtCustomOp op = describe<Embedding>();
  return &op;
}

}  // namespace lepton
