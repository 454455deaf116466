// Which kernels a processor runs.
#include "tiles.h"

namespace lepton {

Form form() {
#if defined(LEPTON_EMULATES_AVX512)
  return avx512_form();
#elif defined(LEPTON_WITHOUT_AVX512)
  return avx2_form();
#else
  const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vnni");
  return wide ? avx512_form() : avx2_form();
#endif
}

}  // namespace lepton
