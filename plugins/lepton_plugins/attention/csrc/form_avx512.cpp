// 32 registers of twice the width: 8 rows of two.
#if !defined(LEPTON_EMULATES_AVX512)
// Here alone, for a library that other processors load too. The headers have no function that the
// linker could take from this file for another.
#pragma GCC target("avx512f,avx512bw,avx512vnni")
#endif
#include "../../toolchain/csrc/lanes512.h"
#include "form_loops.h"

namespace lepton {

AttentionForm avx512_attention() { return form_of<Sixteen, 8>(); }

}  // namespace lepton
