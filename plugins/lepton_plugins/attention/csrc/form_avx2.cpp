// 16 registers: 6 rows of two, and what they are multiplied by.
#include "form_loops.h"
#include "integers.h"

namespace lepton {

AttentionForm avx2_attention() { return form_of<EightIntegers, 6, 8, 1>(); }

}  // namespace lepton
