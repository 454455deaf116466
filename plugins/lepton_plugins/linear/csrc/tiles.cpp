// Inner kernels for AVX2. Sums of products stay in registers for a block, and go to fp32 behind it.
#include "tiles.h"

#include <immintrin.h>

namespace lepton {
namespace {

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline __m256i widened(const void* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
}

inline __m256i broadcast(const void* p) {
  int32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

// Compilers would load all rows first, and then have no registers left for the sums.
inline void in_order(__m256i& a, __m256i& b) { asm volatile("" : "+x"(a), "+x"(b)); }

// Scales of a group, 8 columns each.
struct Scales {
  __m256 low, high;

  explicit Scales(const uint8_t* p) : low(read(p)), high(read(p + kTile)) {}

  static __m256 read(const uint8_t* p) {
    const __m256 stored = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_mul_ps(stored, _mm256_set1_ps(kScaleUnit));
  }
};

// Results of one row, 8 columns each.
struct Total {
  __m256 low = _mm256_setzero_ps(), high = _mm256_setzero_ps();

  void add(__m256i sum_low, __m256i sum_high, const Scales& scales, float scale) {
    const __m256 s = _mm256_set1_ps(scale);
    low = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum_low), _mm256_mul_ps(scales.low, s), low);
    high = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum_high), _mm256_mul_ps(scales.high, s), high);
  }

  void store(const Result& r, int row) const {
    float* y = r.y + row * r.stride;
    float all[kTile] = {};
    __m256 first = low, second = high;
    if (r.bias != nullptr) {
      const float* bias = r.bias;
      if (r.columns < kTile) {
        __builtin_memcpy(all, bias, r.columns * sizeof(float));
        bias = all;
      }
      first = _mm256_add_ps(first, _mm256_loadu_ps(bias));
      second = _mm256_add_ps(second, _mm256_loadu_ps(bias + 8));
    }
    if (r.activation != Activation::kNone) {
      first = activated(r.activation, first);
      second = activated(r.activation, second);
    }
    float* to = r.columns == kTile ? y : all;
    _mm256_storeu_ps(to, first);
    _mm256_storeu_ps(to + 8, second);
    if (to == all) __builtin_memcpy(y, all, r.columns * sizeof(float));
  }
};

template <int R>
void multiply4(Shape shape, const uint8_t* tile, const Activations& a, Total* total) {
  const __m256i half = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  const int8_t* x = static_cast<const int8_t*>(a.numbers);
  const float* scale = a.scale;
  const int32_t* start = a.start;
  for (int g = 0; g < shape.inner; g += shape.group) {
    const Scales scales(tile);
    tile += 2 * kTile;
    for (int block = 0; block < shape.group; block += 32, scale += R, start += R) {
      __m256i low[R], high[R];
      // Both 16-bit halves of a sum begin with half of what the offset of 8 will have added: their
      // ends stay below 2^15 (16 * 8 * 127 + 4 * 32 * 127), and what wraps on the way wraps back.
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) low[m] = high[m] = _mm256_set1_epi16(static_cast<int16_t>(start[m]));
      for (int k = 0; k < 8; ++k, tile += 32, x += 4 * R) {
        const __m256i both = load(tile);
        const __m256i w0 = _mm256_and_si256(both, half);
        const __m256i w1 = _mm256_and_si256(_mm256_srli_epi16(both, 4), half);
#pragma GCC unroll 4
        for (int m = 0; m < R; ++m) {
          const __m256i v = broadcast(x + 4 * m);
          low[m] = _mm256_add_epi16(low[m], _mm256_maddubs_epi16(w0, v));
          high[m] = _mm256_add_epi16(high[m], _mm256_maddubs_epi16(w1, v));
          in_order(low[m], high[m]);
        }
      }
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) {
        total[m].add(_mm256_madd_epi16(low[m], ones), _mm256_madd_epi16(high[m], ones), scales,
                     scale[m]);
      }
    }
  }
}

template <int R>
void multiply7(Shape shape, const uint8_t* tile, const Activations& a, Total* total) {
  const __m256i ones = _mm256_set1_epi16(1);
  const int8_t* x = static_cast<const int8_t*>(a.numbers);
  for (int g = 0; g < shape.blocks(); ++g) {
    const Scales scales(tile);
    tile += 2 * kTile;
    __m256i low[R], high[R];
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) low[m] = high[m] = _mm256_set1_epi32(a.start[R * g + m]);
    for (int k = 0; k < shape.group; k += 8, tile += 128, x += 8 * R) {
      const __m256i w0 = load(tile), w1 = load(tile + 32);
      const __m256i w2 = load(tile + 64), w3 = load(tile + 96);
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) {
        const __m256i v0 = broadcast(x + 4 * m), v1 = broadcast(x + 4 * (R + m));
        const __m256i p0 =
            _mm256_add_epi16(_mm256_maddubs_epi16(w0, v0), _mm256_maddubs_epi16(w2, v1));
        const __m256i p1 =
            _mm256_add_epi16(_mm256_maddubs_epi16(w1, v0), _mm256_maddubs_epi16(w3, v1));
        low[m] = _mm256_add_epi32(low[m], _mm256_madd_epi16(p0, ones));
        high[m] = _mm256_add_epi32(high[m], _mm256_madd_epi16(p1, ones));
        in_order(low[m], high[m]);
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) {
      total[m].add(low[m], high[m], scales, a.scale[R * g + m]);
    }
  }
}

template <int R>
void multiply8(Shape shape, const uint8_t* tile, const Activations& a, Total* total) {
  const int16_t* x = static_cast<const int16_t*>(a.numbers);
  for (int g = 0; g < shape.blocks(); ++g) {
    const Scales scales(tile);
    tile += 2 * kTile;
    __m256i low[R], high[R];
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) low[m] = high[m] = _mm256_setzero_si256();
    for (int k = 0; k < shape.group; k += 2, tile += 32, x += 2 * R) {
      const __m256i w0 = widened(tile), w1 = widened(tile + 16);
#pragma GCC unroll 4
      for (int m = 0; m < R; ++m) {
        const __m256i v = broadcast(x + 2 * m);
        low[m] = _mm256_add_epi32(low[m], _mm256_madd_epi16(w0, v));
        high[m] = _mm256_add_epi32(high[m], _mm256_madd_epi16(w1, v));
        in_order(low[m], high[m]);
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < R; ++m) total[m].add(low[m], high[m], scales, a.scale[R * g + m]);
  }
}

template <int R>
void multiply(Shape shape, const uint8_t* tile, const Activations& a, const Result& result) {
  Total total[R];
  if (shape.bits == 4) {
    multiply4<R>(shape, tile, a, total);
  } else if (shape.bits == 7) {
    multiply7<R>(shape, tile, a, total);
  } else {
    multiply8<R>(shape, tile, a, total);
  }
  for (int m = 0; m < R; ++m) total[m].store(result, m);
}

}  // namespace

void multiply_tile(Shape shape, const uint8_t* tile, const Activations& a, const Result& result) {
  using Kernel = void (*)(Shape, const uint8_t*, const Activations&, const Result&);
  static constexpr Kernel kernels[kRows] = {multiply<1>, multiply<2>, multiply<3>, multiply<4>};
  kernels[a.rows - 1](shape, tile, a, result);
}

}  // namespace lepton
