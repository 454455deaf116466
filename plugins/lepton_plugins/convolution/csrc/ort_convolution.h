// Causal convolution as an operator of onnxruntime.
#pragma once
#include "../../toolchain/csrc/ort_abi.h"

namespace lepton {

const OrtCustomOp* convolution_op();

}  // namespace lepton
