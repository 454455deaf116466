// 16 registers: 6 rows of two, and what they are multiplied by.
#include "form_loops.h"

namespace lepton {

AttentionForm avx2_attention() { return form_of<Eight, 6>(); }

}  // namespace lepton
