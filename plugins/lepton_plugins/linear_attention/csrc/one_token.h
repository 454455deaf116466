// One token, over a part of a matrix.
#pragma once
#include "part.h"

namespace lepton {

void one_token(const Part& part);

}  // namespace lepton
