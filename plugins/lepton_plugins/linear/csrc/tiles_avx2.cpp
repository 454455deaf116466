// Inner kernels for AVX2: bytes are multiplied and added in pairs (vpmaddubsw), 8 columns in each
// register.
#include <immintrin.h>

#include "finish_loops.h"
#include "quantize_loops.h"
#include "tile_loop.h"

namespace lepton {
namespace {

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline __m256i broadcast(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

// Compilers would load all rows first, and then have no registers left for the sums.
inline void in_order(__m256i& a, __m256i& b) { asm volatile("" : "+x"(a), "+x"(b)); }

inline __m256i pairs(__m256i sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }

struct Scales {
  static constexpr int kBytes = 2 * kTile;
  __m256 low, high;

  explicit Scales(const uint8_t* p) : low(read(p)), high(read(p + kTile)) {}

  static __m256 read(const uint8_t* p) {
    const __m256 stored = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_mul_ps(stored, _mm256_set1_ps(kScaleUnit));
  }
};

struct SpreadScales {
  static constexpr int kBytes = 4 * kTile;
  __m256 low, high;

  explicit SpreadScales(const uint8_t* p) : low(read(p)), high(read(p + kBytes / 2)) {}

  static __m256 read(const uint8_t* p) { return _mm256_castsi256_ps(load(p)); }
};

// Sums of 16 columns in 32 bits.
struct Sum32 {
  __m256i low, high;

  Sum32() = default;
  explicit Sum32(int32_t start) : low(_mm256_set1_epi32(start)), high(low) {}

  Sum32 whole() const { return *this; }

  void add32(__m256i more_low, __m256i more_high) {
    low = _mm256_add_epi32(low, more_low);
    high = _mm256_add_epi32(high, more_high);
    in_order(low, high);
  }
};

struct Total {
  __m256 low, high;

  void load(const float* from) {
    low = _mm256_loadu_ps(from);
    high = _mm256_loadu_ps(from + 8);
  }

  template <class Sum>
  void begin(const Sum& sum, float scale) {
    const Sum32 whole = sum.whole();
    const __m256 s = _mm256_set1_ps(scale);
    low = _mm256_mul_ps(_mm256_cvtepi32_ps(whole.low), s);
    high = _mm256_mul_ps(_mm256_cvtepi32_ps(whole.high), s);
  }

  template <class Sum>
  void add(const Sum& sum, float scale) {
    const Sum32 whole = sum.whole();
    const __m256 s = _mm256_set1_ps(scale);
    low = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole.low), s, low);
    high = _mm256_fmadd_ps(_mm256_cvtepi32_ps(whole.high), s, high);
  }

  template <class Scales>
  void add(const Total& part, const Scales& scales) {
    low = _mm256_fmadd_ps(part.low, scales.low, low);
    high = _mm256_fmadd_ps(part.high, scales.high, high);
  }

  template <class Scales>
  void shift(const Scales& offsets, float by) {
    const __m256 s = _mm256_set1_ps(by);
    low = _mm256_fmadd_ps(offsets.low, s, low);
    high = _mm256_fmadd_ps(offsets.high, s, high);
  }

  void store(float* to) const {
    _mm256_storeu_ps(to, low);
    _mm256_storeu_ps(to + 8, high);
  }
};

struct Common {
  using Scales = lepton::Scales;
  using Total = lepton::Total;
};

struct Four : Common {
  static constexpr int kDepth = 4, kBytes = 32, kSteps = 8;

  struct Bytes {
    __m256i low, high;
  };

  struct Read : Bytes {
    explicit Read(const uint8_t* p) {
      const __m256i both = load(p), half = _mm256_set1_epi8(15);
      low = _mm256_and_si256(both, half);
      high = _mm256_and_si256(_mm256_srli_epi16(both, 4), half);
    }
  };

  // Both 16-bit halves of a sum begin with what the middle will have added to them: their ends stay
  // below 2^15 (16 * 12 * 127), and what wraps on the way wraps back.
  struct Sum {
    __m256i low, high;

    Sum() = default;
    explicit Sum(int32_t start) : low(_mm256_set1_epi32(start)), high(low) {}

    void add(const Bytes& w, const uint8_t* x, int) {
      const __m256i v = broadcast(x);
      low = _mm256_add_epi16(low, _mm256_maddubs_epi16(w.low, v));
      high = _mm256_add_epi16(high, _mm256_maddubs_epi16(w.high, v));
      in_order(low, high);
    }

    Sum32 whole() const {
      Sum32 sum;
      sum.low = pairs(low);
      sum.high = pairs(high);
      return sum;
    }
  };
};

struct Floats : Four {
  struct Read : Bytes {
    explicit Read(const uint8_t* p) : Bytes(Four::Read(p)) {
      const __m128i once = _mm_load_si128(reinterpret_cast<const __m128i*>(kFloats));
      const __m256i table = _mm256_broadcastsi128_si256(once);
      low = _mm256_shuffle_epi8(table, low);
      high = _mm256_shuffle_epi8(table, high);
    }
  };
};

struct Spread : Four {
  using Scales = SpreadScales;
  static constexpr int kBytes = 64;

  struct Read : Bytes {
    explicit Read(const uint8_t* p) : Bytes{load(p), load(p + 32)} {}
  };
};

struct Seven : Common {
  static constexpr int kDepth = 8, kBytes = 128, kSteps = 1;

  struct Read {
    __m256i low, high, next_low, next_high;

    explicit Read(const uint8_t* p)
        : low(load(p)), high(load(p + 32)), next_low(load(p + 64)), next_high(load(p + 96)) {}
  };

  struct Sum : Sum32 {
    using Sum32::Sum32;

    void add(const Read& w, const uint8_t* x, int next) {
      const __m256i v = broadcast(x), u = broadcast(x + next);
      add32(pairs(both(w.low, v, w.next_low, u)), pairs(both(w.high, v, w.next_high, u)));
    }

    static __m256i both(__m256i w, __m256i v, __m256i next, __m256i u) {
      return _mm256_add_epi16(_mm256_maddubs_epi16(w, v), _mm256_maddubs_epi16(next, u));
    }
  };
};

// Magnitudes of weights times activations that have their signs: bytes with a middle would leave 16
// bits, and so there is none to cancel.
struct EightBits : Common {
  static constexpr int kDepth = 4, kBytes = 64, kSteps = 2;

  struct Read {
    __m256i low, high, low_size, high_size;

    explicit Read(const uint8_t* p)
        : low(without_middle(p)),
          high(without_middle(p + 32)),
          low_size(_mm256_abs_epi8(low)),
          high_size(_mm256_abs_epi8(high)) {}

    static __m256i without_middle(const uint8_t* p) {
      return _mm256_xor_si256(load(p), _mm256_set1_epi8(-128));
    }
  };

  struct Sum : Sum32 {
    Sum() = default;
    explicit Sum(int32_t) : Sum32(0) {}

    void add(const Read& w, const uint8_t* x, int) {
      const __m256i v = broadcast(x);
      add32(products(w.low_size, w.low, v), products(w.high_size, w.high, v));
    }

    static __m256i products(__m256i size, __m256i w, __m256i v) {
      return pairs(_mm256_maddubs_epi16(size, _mm256_sign_epi8(v, w)));
    }
  };
};

constexpr int kRows = 4;

void multiply(Shape shape, const Tiles& tiles, const Activations& a, const Totals& totals) {
  if (shape.spread) return multiply_either<Spread, kBlock, kRows, 1>(shape, tiles, a, totals);
  multiply_any<Four, Floats, Seven, EightBits, kRows, 1>(shape, tiles, a, totals);
}

}  // namespace

Form avx2_form() {
  return {kRows, true, true, quantize_row<Eight>, multiply, finish<Eight>, finish_gated<Eight>};
}

}  // namespace lepton
