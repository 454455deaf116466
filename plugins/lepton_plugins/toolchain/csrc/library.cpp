// The operators of all plugins as one library for onnxruntime's register_custom_ops_library.
#include <initializer_list>

#include "../../attention/csrc/ort_attention.h"
#include "../../convolution/csrc/ort_convolution.h"
#include "../../linear/csrc/ort_experts.h"
#include "../../linear/csrc/ort_linear.h"
#include "../../linear_attention/csrc/ort_linear_attention.h"
#include "../../normalization/csrc/ort_normalization.h"
#include "ort_abi.h"

namespace {

constexpr const char* kDomain = "ai.lepton.cpu";

bool runs_here() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

}  // namespace

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) return nullptr;  // no table to make an error with; the session says the rest
  if (!runs_here()) return api->CreateStatus(ORT_FAIL, "this processor has no AVX2, FMA and F16C");
  // Made for each call and never released: it has to outlive the sessions, whose end nobody tells.
  OrtCustomOpDomain* domain = nullptr;
  if (OrtStatus* s = api->CreateCustomOpDomain(kDomain, &domain)) return s;
  for (const OrtCustomOp* each :
       {lepton::linear_op(), lepton::embedding_op(), lepton::experts_op(), lepton::attention_op(),
        lepton::cached_attention_op(), lepton::half_cached_attention_op(),
        lepton::byte_cached_attention_op(), lepton::normalization_op(),
        lepton::skip_normalization_op(), lepton::convolution_op(), lepton::linear_attention_op()}) {
    if (OrtStatus* s = api->CustomOpDomain_Add(domain, each)) return s;
  }
  return api->AddCustomOpDomain(options, domain);
}
