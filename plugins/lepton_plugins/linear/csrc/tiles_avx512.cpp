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
  static constexpr int kBytes = 2 * kTile;
  Floats all;

  explicit Scales(const uint8_t* p) : all(times(halves(p), kScaleUnit)) {}
};

struct SpreadScales {
  static constexpr int kBytes = 4 * kTile;
  Floats all;

  explicit SpreadScales(const uint8_t* p) : all(floats(p)) {}
};

struct Total {
  Floats all;

  Total() {}

  void clear() { all = zeros(); }

  template <class Sum, class Scales>
  void add(const Sum& sum, const Scales& scales, float scale) {
    all = add_scaled(all, sum.all, times(scales.all, scale));
  }

  template <class Scales>
  void shift(const Scales& offsets, float by) { all = add_scaled(all, offsets.all, by); }

  void store(float* to) const { lepton::store(to, all); }
};

// Numbers of `Bits` bits: steps of `Depth` are `Size` bytes of a tile.
template <int Bits, int Depth, int Size, class Numbers, Numbers (*read)(const uint8_t*)>
struct Kind {
  using Scales = lepton::Scales;
  using Total = lepton::Total;
  static constexpr int kBits = Bits, kDepth = Depth, kBytes = Size, kSteps = 8;

  struct Read {
    Numbers all;

    explicit Read(const uint8_t* p) : all(read(p)) {}
  };

  struct Sum {
    Ints all;

    Sum() {}
    explicit Sum(int32_t start) : all(lepton::all(start)) {}

    void add(const Read& w, const uint8_t* x, int) { all = add_products(all, w.all, x); }
  };
};

struct Spread : Kind<4, 4, 64, Bytes, bytes> {
  using Scales = SpreadScales;
};
using Four = Kind<4, 4, 32, Bytes, half_bytes>;
using FloatCodes = Kind<4, 4, 32, Bytes, half_floats>;
using Seven = Kind<7, 4, 64, Bytes, bytes>;
using Eight = Kind<8, 2, 32, Words, words>;

}  // namespace

Form avx512_form() {
  return {kMostRows, false, multiply_any<Four, FloatCodes, Spread, Seven, Eight, kMostRows, kMostTiles>};
}

}  // namespace lepton
