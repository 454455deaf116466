// Inner kernels for AVX-512 with VNNI: four products of bytes are added to 32 bits at once
// (vpdpbusd), 16 columns in one register. Sums are whole at every step, so nothing is widened.
#if !defined(LEPTON_EMULATES_AVX512)
// Here alone, for a library that other processors load too. The headers have no function that the
// linker could take from this file for another.
#pragma GCC target("avx512f,avx512bw,avx512vnni")
#endif
#include "tile_loop.h"
#include "vector512.h"

namespace lepton {
namespace {

struct Scales {
  Floats all;

  explicit Scales(const uint8_t* p) : all(times(halves(p), kScaleUnit)) {}
};

template <class Weights>
struct SumOf {
  Ints all;

  SumOf() {}
  explicit SumOf(int32_t start) : all(lepton::all(start)) {}

  void add(const Weights& w, const uint8_t* x, int) { all = add_products(all, w.all, x); }
};

struct Total {
  Floats all;

  Total() {}

  void clear() { all = zeros(); }

  template <class Sum>
  void add(const Sum& sum, const Scales& scales, float scale) {
    all = add_scaled(all, sum.all, times(scales.all, scale));
  }

  void store(const Result& r, int row) const {
    store_columns(r, row, low_half(all), high_half(all));
  }
};

struct Common {
  using Scales = lepton::Scales;
  using Total = lepton::Total;
};

struct Four : Common {
  static constexpr int kBits = 4, kDepth = 4, kBytes = 32;

  struct Read {
    Bytes all;

    explicit Read(const uint8_t* p) : all(half_bytes(p)) {}
  };
  using Sum = SumOf<Read>;
};

struct Seven : Common {
  static constexpr int kBits = 7, kDepth = 4, kBytes = 64;

  struct Read {
    Bytes all;

    explicit Read(const uint8_t* p) : all(bytes(p)) {}
  };
  using Sum = SumOf<Read>;
};

struct Eight : Common {
  static constexpr int kBits = 8, kDepth = 2, kBytes = 32;

  struct Read {
    Words all;

    explicit Read(const uint8_t* p) : all(words(p)) {}
  };
  using Sum = SumOf<Read>;
};

}  // namespace

Form avx512_form() { return {kMostRows, multiply_any<Four, Seven, Eight, kMostRows>}; }

}  // namespace lepton
