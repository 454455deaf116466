// Which kernels a processor runs.
#include "tiles.h"

#include "../../toolchain/csrc/wide.h"

namespace lepton {

Form form() { return wide() ? avx512_form() : avx2_form(); }

}  // namespace lepton
