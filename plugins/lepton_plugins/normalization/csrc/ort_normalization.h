// Normalization as operators of onnxruntime.
#pragma once
#include "../../toolchain/csrc/ort_abi.h"

namespace lepton {

const OrtCustomOp* normalization_op();
const OrtCustomOp* skip_normalization_op();

}  // namespace lepton
