// 32 registers of twice the width: 8 rows of two.
// Other processors load the library, too: the headers have no function that the linker could take
// from this file, which is compiled for AVX-512, for another.
#include "../../toolchain/csrc/lanes512.h"
#include "form_loops.h"

namespace lepton {

AttentionForm avx512_attention() { return form_of<Sixteen, 8>(); }

}  // namespace lepton
