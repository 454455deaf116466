// Mixtures of experts as an operator of onnxruntime.
#pragma once
#include "../../toolchain/csrc/ort_abi.h"

namespace lepton {

const OrtCustomOp* experts_op();

}  // namespace lepton
