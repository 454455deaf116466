#include "form.h"

#include "../../toolchain/csrc/wide.h"

namespace lepton {

AttentionForm attention_form() { return wide() ? avx512_attention() : avx2_attention(); }

}  // namespace lepton
