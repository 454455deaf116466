// Attention as operators of onnxruntime.
#pragma once
#include "../../toolchain/csrc/ort_abi.h"

namespace lepton {

const OrtCustomOp* attention_op();
const OrtCustomOp* cached_attention_op();
const OrtCustomOp* half_cached_attention_op();  // likewise, where caches are of halves
const OrtCustomOp* byte_cached_attention_op();  // or of bytes

}  // namespace lepton
