// Many tokens, over a part of a matrix.
#pragma once
#include "part.h"

namespace lepton {

constexpr int64_t kPanel = 16;      // columns that are worked on at once
constexpr int64_t kRoom = 1 << 14;  // floats of a part, at most

static_assert(kRoom / kMostDepth >= kPanel);

void many_tokens(const Part& part);

}  // namespace lepton
