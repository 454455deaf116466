// The linear layer and the embedding table as operators of onnxruntime.
#pragma once
#include "../../toolchain/csrc/ort_abi.h"

namespace lepton {

const OrtCustomOp* linear_op();
const OrtCustomOp* embedding_op();

}  // namespace lepton
