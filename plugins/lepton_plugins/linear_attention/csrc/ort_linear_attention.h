// Linear attention as an operator of onnxruntime.
#pragma once
#include "../../toolchain/csrc/ort_abi.h"

namespace lepton {

const OrtCustomOp* linear_attention_op();

}  // namespace lepton
