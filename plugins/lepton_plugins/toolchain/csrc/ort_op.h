// What every operator of the library does with onnxruntime: operands, attributes, threads.
#pragma once
#include <cstdlib>
#include <new>

#include "ort_abi.h"
#include "parallel.h"

namespace lepton {

constexpr size_t kMostDimensions = 8;

// A tensor on its way in or out.
struct Operand {
  void* data = nullptr;
  int64_t dims[kMostDimensions] = {};
  size_t rank = 0;

  int64_t size() const {
    int64_t product = 1;
    for (size_t i = 0; i < rank; ++i) product *= dims[i];
    return product;
  }
  int64_t last() const { return rank == 0 ? 1 : dims[rank - 1]; }
  template <class T> T* as() const { return static_cast<T*>(data); }
};

inline OrtStatus* wrong(const OrtApi* api, const char* what) {
  return api->CreateStatus(ORT_INVALID_ARGUMENT, what);
}

// Input `index`; data stays null where an optional one is left out.
inline OrtStatus* input(const OrtApi* api, const OrtKernelContext* context, size_t index,
                        Operand* operand) {
  size_t count = 0;
  if (OrtStatus* s = api->KernelContext_GetInputCount(context, &count)) return s;
  if (index >= count) return nullptr;
  const OrtValue* value = nullptr;
  if (OrtStatus* s = api->KernelContext_GetInput(context, index, &value)) return s;
  if (value == nullptr) return nullptr;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  if (OrtStatus* s = api->GetTensorTypeAndShape(value, &info)) return s;
  OrtStatus* status = api->GetDimensionsCount(info, &operand->rank);
  if (status == nullptr && operand->rank > kMostDimensions) {
    status = wrong(api, "a tensor has more than 8 dimensions");
  }
  if (status == nullptr) status = api->GetDimensions(info, operand->dims, operand->rank);
  api->ReleaseTensorTypeAndShapeInfo(info);
  if (status != nullptr) return status;
  return api->GetTensorMutableData(const_cast<OrtValue*>(value), &operand->data);
}

// Output `index` of the shape that `operand` has; data stays null where a graph leaves it out.
inline OrtStatus* optional_result(const OrtApi* api, OrtKernelContext* context, size_t index,
                                  Operand* operand) {
  operand->data = nullptr;
  size_t count = 0;
  if (OrtStatus* s = api->KernelContext_GetOutputCount(context, &count)) return s;
  if (index >= count) return nullptr;
  OrtValue* value = nullptr;
  if (OrtStatus* s =
          api->KernelContext_GetOutput(context, index, operand->dims, operand->rank, &value)) {
    return s;
  }
  return value == nullptr ? nullptr : api->GetTensorMutableData(value, &operand->data);
}

// Output `index` of the shape that `operand` has.
inline OrtStatus* output(const OrtApi* api, OrtKernelContext* context, size_t index,
                         Operand* operand) {
  if (OrtStatus* s = optional_result(api, context, index, operand)) return s;
  const bool empty = operand->size() == 0;
  return operand->data == nullptr && !empty ? wrong(api, "an output is left out") : nullptr;
}

// Work is shared out in so many pieces: more than there are threads, as some are slower.
constexpr size_t kMostBatches = 128;

// The threads of the session.
class SessionThreads final : public Parallel {
 public:
  SessionThreads(const OrtApi* api, const OrtKernelContext* context)
      : api_(api), context_(context) {}

  void run(int64_t count, void (*body)(void*, size_t), void* user) const override {
    if (count == 1) return body(user, 0);
    const size_t total = static_cast<size_t>(count);
    const size_t batches = total < kMostBatches ? total : kMostBatches;
    OrtStatus* status = api_->KernelContext_ParallelFor(context_, body, total, batches, user);
    if (status == nullptr) return;
    api_->ReleaseStatus(status);
    for (size_t i = 0; i < total; ++i) body(user, i);
  }

 private:
  const OrtApi* api_;
  const OrtKernelContext* context_;
};

// A kernel class made in memory of libc, so that the library needs no other; K has read(api, info).
template <class K>
class Operator {
 public:
  static OrtStatus* create(const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    void* memory = malloc(sizeof(K));
    if (memory == nullptr) return api->CreateStatus(ORT_FAIL, "out of memory");
    *kernel = memory;
    return (new (memory) K)->read(api, info);
  }
  static void destroy(K* kernel) { free(kernel); }
  static OrtElementType output_type(size_t) { return ORT_FLOAT; }
  static bool optional(size_t) { return false; }
  static bool optional_output(size_t) { return false; }
};

// An operator with a kernel class K, which has create(api, info, K**) and compute(context), and
// with kInputs, kOutputs, input_type(i), optional(i), output_type(i) and optional_output(i).
template <class K>
constexpr OrtCustomOp describe() {
  OrtCustomOp op = {};
  op.version = ORT_API_VERSION;
  op.GetName = [](const OrtCustomOp*) { return K::kName; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return K::kInputs; };
  op.GetInputType = [](const OrtCustomOp*, size_t i) { return K::input_type(i); };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t i) {
    return K::optional(i) ? ORT_OPTIONAL : ORT_REQUIRED;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return K::kOutputs; };
  op.GetOutputType = [](const OrtCustomOp*, size_t i) { return K::output_type(i); };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t i) {
    return K::optional_output(i) ? ORT_OPTIONAL : ORT_REQUIRED;
  };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info,
                         void** kernel) { return K::create(api, info, kernel); };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return static_cast<K*>(kernel)->compute(context);
  };
  op.KernelDestroy = [](void* kernel) { K::destroy(static_cast<K*>(kernel)); };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
  return op;
}

}  // namespace lepton
