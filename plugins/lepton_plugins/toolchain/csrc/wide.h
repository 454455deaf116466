// Whether kernels for AVX-512 with VNNI run, which this processor has or the library emulates.
#pragma once

namespace lepton {

static inline bool wide() {
#if defined(LEPTON_EMULATES_AVX512)
  return true;
#elif defined(LEPTON_WITHOUT_AVX512)
  return false;
#else
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vnni");
#endif
}

}  // namespace lepton
