// Inner kernels for AVX-512 with VNNI: four products of bytes are added to 32 bits at once
// (vpdpbusd), 16 columns in one register. Sums are whole at every step, so nothing is widened.
// Other processors load the library, too: the headers have no function that the linker could take
// from this file, which is compiled for AVX-512, for another.
#include "finish_loops.h"
#include "quantize_loops.h"
#include "tile_loop.h"
#include "vector512.h"

namespace lepton {
namespace {

struct Scales {
  static constexpr int kBytes = 2 * kTile;
  Sixteen all;

  explicit Scales(const uint8_t* p) : all(halves(p) * Sixteen::all(kScaleUnit)) {}
};

struct Total {
  Sixteen all;

  Total() {}

  void load(const float* from) { all = Sixteen::load(from); }

  template <class Sum>
  void begin(const Sum& sum, float scale) { all = floats(sum.all) * Sixteen::all(scale); }

  template <class Sum>
  void add(const Sum& sum, float scale) { all = fused(floats(sum.all), Sixteen::all(scale), all); }

  void add(const Total& part, const Scales& scales) { all = fused(part.all, scales.all, all); }

  void shift(const Scales& offsets, float by) { all = fused(offsets.all, Sixteen::all(by), all); }

  void store(float* to) const { all.store(to); }
};

// Steps are `Size` bytes of a tile.
template <int Size, Bytes (*read)(const uint8_t*)>
struct Kind {
  using Scales = lepton::Scales;
  using Total = lepton::Total;
  static constexpr int kDepth = 4, kBytes = Size;
#if defined(LEPTON_EMULATES_AVX512)
  static constexpr int kSteps = 2;
#else
  static constexpr int kSteps = 16;
#endif

  struct Read {
    Bytes all;

    explicit Read(const uint8_t* p) : all(read(p)) {}
  };

  struct Sum {
    Ints all;

    Sum() {}
    explicit Sum(int32_t start) : all(lepton::all(start)) {}

    void add(const Read& w, const uint8_t* x, int) { all = add_products(all, w.all, x); }
  };
};

using Four = Kind<32, half_bytes>;
using Floats = Kind<32, half_floats>;
using EightBits = Kind<64, bytes>;  // or 7

}  // namespace

Form avx512_form() {
  return {kMostRows, false, false, quantize_row<Sixteen>,
          multiply_any<Four, Floats, EightBits, EightBits, kMostRows, 2>,
          finish<Sixteen>, finish_gated<Sixteen>};
}

}  // namespace lepton
