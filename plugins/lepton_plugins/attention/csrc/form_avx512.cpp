// 32 registers of twice the width: 8 rows of two.
// Other processors load the library, too: the headers have no function that the linker could take
// from this file, which is compiled for AVX-512, for another.
#include "../../toolchain/csrc/lanes512.h"
#include "form_loops.h"
#include "integers512.h"

namespace lepton {

AttentionForm avx512_attention() { return form_of<SixteenIntegers, 8, 8, 2>(); }

}  // namespace lepton
