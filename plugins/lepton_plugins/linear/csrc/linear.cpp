// First all rows of activations are rounded and interleaved, then blocks of rows go over bands of
// tiles. Both stay in the second cache; a strip, the rows that a kernel takes at once, in the first.
// Many strips share one spreading of a band, where there is any.
#include "linear.h"

#include <immintrin.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace lepton {
namespace {

constexpr int64_t kBlockRows = 192;      // of activations, at most, in whole strips
constexpr int64_t kBandBytes = 1 << 15;  // of tiles, at most
constexpr int64_t kLongBandBytes = 1 << 17;  // where they are read once, in a stream
constexpr int64_t kBands = 16;           // at least, where there are so many tiles: to share out evenly
constexpr int64_t kStripsToSpread = 3;   // of a block, at least
constexpr int64_t kStripsToCall = 4;     // of a block, at least, for the weights of the next band
constexpr int64_t kLine = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

size_t whole_lines(size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

// Some tiles, as they lie in memory: from `first` on, and gated those that they open.
struct Band {
  int64_t first, last;
  Shape shape;
  const uint8_t *tiles, *let;  // let: null without a gate

  const uint8_t* tile(int64_t index) const { return tiles + offset(index); }
  const uint8_t* gated(int64_t index) const { return let + offset(index); }

  // Have one of so many parts of it come near: the first rows of a band would wait for its weights.
  // Inside of its caller, for GCC leaves out calls of a function that does nothing but this.
  __attribute__((always_inline)) void call_for(int64_t part, int64_t parts) const {
    const int64_t bytes = (last - first) * static_cast<int64_t>(shape.tile_bytes());
    const int64_t size = ceil_div(bytes, parts * kLine) * kLine;
    const int64_t end = (part + 1) * size < bytes ? (part + 1) * size : bytes;
    for (int64_t at = part * size; at < end; at += kLine) {
      __builtin_prefetch(tiles + at, 0, 2);
      if (let != nullptr) __builtin_prefetch(let + at, 0, 2);
    }
  }

  // `count` of them, from `index` on, each with that which it opens.
  Tiles at(int64_t index, int count, const float* bias, bool from_memory) const {
    const auto size = static_cast<ptrdiff_t>(shape.tile_bytes());
    const size_t rest = from_memory ? (last - index) * size : 0;
    if (let == nullptr) return {tile(index), size, 2 * size, count, bias, rest};
    return {tile(index), let - tiles, size, 2 * count, bias, rest};
  }

 private:
  int64_t offset(int64_t index) const {
    return (index - first) * static_cast<int64_t>(shape.tile_bytes());
  }
};

// One layer: its operands, how it is cut to pieces, and the rounded activations.
struct Call {
  const Weights& w;
  const float* x;
  int64_t rows;
  float* y;
  Form form = lepton::form();
  int64_t tiles, band_tiles, bands;
  int64_t strip, block;  // rows that a kernel takes at once, and that share a band
  bool once;  // one strip alone: its weights come from memory
  int64_t first_strip = 0, first_piece = 0;  // among those of all layers
  int8_t* numbers = nullptr;
  float* scale = nullptr;
  int32_t* start = nullptr;
  float* shift = nullptr;

  explicit Call(const Layer& layer)
      : w(layer.weights), x(layer.x), rows(layer.rows), y(layer.y) {
    tiles = ceil_div(w.results(), kTile);
    once = rows <= form.rows;
    const int64_t bytes = once ? kLongBandBytes : kBandBytes;
    const int64_t by_bytes = bytes / static_cast<int64_t>(w.shape.tile_bytes()) + 1;
    const int64_t by_count = tiles / kBands + 1;
    band_tiles = ceil_div(by_bytes < by_count ? by_bytes : by_count, 2) * 2;
    bands = ceil_div(tiles, band_tiles);
    const int64_t blocks = rows == 0 ? 1 : ceil_div(rows, kBlockRows);
    strip = rows == 0 ? 1 : ceil_div(rows, ceil_div(rows, form.rows));
    block = ceil_div(ceil_div(rows, blocks), strip) * strip;
  }

  int64_t strips() const { return ceil_div(rows, strip); }

  int64_t pieces() const { return rows == 0 ? 0 : ceil_div(rows, block) * bands; }

  size_t numbers_bytes() const {
    return whole_lines(rows * static_cast<size_t>(w.shape.inner));
  }

  size_t scales_bytes() const { return whole_lines(rows * w.shape.blocks() * sizeof(float)); }

  size_t shifts_bytes() const {
    return w.shape.offsets ? whole_lines(rows * w.shape.groups() * sizeof(float)) : 0;
  }

  size_t scratch_bytes() const { return numbers_bytes() + 2 * scales_bytes() + shifts_bytes(); }

  void use(int8_t* scratch) {
    numbers = scratch;
    scale = reinterpret_cast<float*>(numbers + numbers_bytes());
    start = reinterpret_cast<int32_t*>(numbers + numbers_bytes() + scales_bytes());
    if (!w.shape.offsets) return;
    shift = reinterpret_cast<float*>(numbers + numbers_bytes() + 2 * scales_bytes());
  }

  int rows_at(int64_t first) const {
    return static_cast<int>(rows - first < strip ? rows - first : strip);
  }

  int8_t* numbers_at(int64_t first) const {
    return numbers + first * w.shape.inner;
  }

  void round(int64_t first) const {
    const int count = rows_at(first);
    const int64_t place = first * w.shape.blocks();
    for (int m = 0; m < count; ++m) {
      float* sums = shift == nullptr ? nullptr : shift_at(first) + m;
      form.quantize_row(w.shape, x + (first + m) * w.shape.inner, w.order,
                        {count, numbers_at(first) + 4 * m, scale + place + m, start + place + m,
                         sums, form.halves});
    }
  }

  float* shift_at(int64_t first) const {
    return shift == nullptr ? nullptr : shift + first * w.shape.groups();
  }

  Band packed(int64_t first, int64_t last) const {
    const int64_t size = static_cast<int64_t>(w.shape.tile_bytes());
    const uint8_t* const let = w.gated ? w.tiles + (tiles + first) * size : nullptr;
    return {first, last, w.shape, w.tiles + first * size, let};
  }

  // The band becomes one that is spread, in memory to be freed; where that is short, it stays.
  void* spread(Band* band) const {
    Band apart = *band;
    apart.shape.spread = true;
    const int64_t size = static_cast<int64_t>(apart.shape.tile_bytes());
    const int64_t bytes = (band->last - band->first) * size;
    void* room = aligned_alloc(kLine, whole_lines(w.gated ? 2 * bytes : bytes));
    if (room == nullptr) return nullptr;
    auto* to = static_cast<uint8_t*>(room);
    apart.tiles = to;
    if (w.gated) apart.let = to + bytes;
    for (int64_t i = band->first; i < band->last; ++i, to += size) {
      spread_tile(w.shape, band->tile(i), to);
      if (w.gated) spread_tile(w.shape, band->gated(i), to + bytes);
    }
    *band = apart;
    return room;
  }

  // The strip of rows from `first` on, times a band.
  void multiply(int64_t first, const Band& band) const {
    const int64_t place = first * w.shape.blocks();
    const Activations a{rows_at(first), numbers_at(first), scale + place, start + place,
                        shift_at(first)};
    alignas(kLine) float room[kMostRows * kMostTiles * kTile], copied[kMostTiles * kTile];
    const Totals totals = {room, kMostTiles * kTile};
    // Rows of results lie apart, so that totals that are read again are near only in a place of their own.
    const bool as_they_are = !w.gated && w.activation == Activation::kNone && w.shape.one_block();
    const int64_t step = w.gated ? kMostTiles / 2 : kMostTiles;
    for (int64_t i = band.first; i < band.last; i += step) {
      const int count = static_cast<int>(band.last - i < step ? band.last - i : step);
      const Corner to = corner(first, i, count, a.rows);
      const Tiles run = band.at(i, count, bias(i, count, copied), once);
      prefetch(to);
      if (as_they_are && to.columns == count * kTile) {
        form.multiply(band.shape, run, a, {to.y, to.stride});
        continue;
      }
      form.multiply(band.shape, run, a, totals);
      w.gated ? form.finish_gated(totals, w.activation, w.gate, to)
              : form.finish(totals, w.activation, to);
    }
  }

  Corner corner(int64_t row, int64_t tile, int count, int rows_here) const {
    const int64_t results = w.results(), left = results - tile * kTile;
    const int columns = static_cast<int>(left < count * kTile ? left : count * kTile);
    return {y + row * results + tile * kTile, results, rows_here, columns};
  }

  // That of `count` tiles, in place or copied; zero where there is none.
  const float* bias(int64_t tile, int count, float* copied) const {
    static const float kNone[kMostTiles * kTile] = {};
    if (w.bias == nullptr) return kNone;
    const float* from = w.bias + tile * kTile;
    if (w.gated) {
      for (int i = 0; i < count; ++i, from += kTile) {
        memcpy(copied + 2 * i * kTile, from, kTile * sizeof(float));
        memcpy(copied + (2 * i + 1) * kTile, from + tiles * kTile, kTile * sizeof(float));
      }
      return copied;
    }
    const int64_t left = w.columns - tile * kTile;
    if (left >= count * kTile) return from;
    memset(copied, 0, count * kTile * sizeof(float));
    memcpy(copied, from, left * sizeof(float));
    return copied;
  }

  // Results lie far apart: they are called for while products are computed.
  static void prefetch(const Corner& to) {
    for (int m = 0; m < to.rows; ++m) {
      for (int c = 0; c < to.columns; c += kTile) __builtin_prefetch(to.y + m * to.stride + c, 1);
    }
  }
};

struct Calls {
  Call* all;
  int64_t count;

  // That of piece `i`, of which its own begin at `first`; counts `i` from there.
  const Call& of(int64_t Call::*first, int64_t* i) const {
    const Call* call = all;
    while (call + 1 < all + count && (call + 1)->*first <= *i) ++call;
    *i -= call->*first;
    return *call;
  }
};

void round_strip(void* user, size_t number) {
  auto i = static_cast<int64_t>(number);
  const Call& call = static_cast<const Calls*>(user)->of(&Call::first_strip, &i);
  call.round(i * call.strip);
}

void multiply_band(void* user, size_t number) {
  auto i = static_cast<int64_t>(number);
  const Call& call = static_cast<const Calls*>(user)->of(&Call::first_piece, &i);
  const int64_t from = i / call.bands * call.block;
  const int64_t end = from + call.block < call.rows ? from + call.block : call.rows;
  const int64_t first = i % call.bands * call.band_tiles;
  const int64_t last = first + call.band_tiles < call.tiles ? first + call.band_tiles : call.tiles;
  Band band = call.packed(first, last);
  const int64_t strips = ceil_div(end - from, call.strip);
  const bool many = end - from >= kStripsToSpread * call.strip;
  const bool spreads = many && call.form.spreads && call.w.shape.bits == 4;
  void* room = spreads ? call.spread(&band) : nullptr;
  const int64_t following = last + call.band_tiles;
  const Band next = call.packed(last, following < call.tiles ? following : call.tiles);
  for (int64_t strip = 0; strip < strips; ++strip) {
    if (strips >= kStripsToCall) next.call_for(strip, strips);
    call.multiply(from + strip * call.strip, band);
  }
  free(room);
}

// The scale, or the offset, of column c.
float stored(const uint8_t* of_group, int c) {
  uint16_t half;
  __builtin_memcpy(&half, of_group + 2 * c, sizeof half);
  return _cvtsh_ss(half) * kScaleUnit;
}

// Rows k to k + 3 of column c among the integers of a group, as they are stored, a byte for each.
int32_t four_of(Shape shape, const uint8_t* q, int k, int c) {
  const bool halves = shape.bits == 4;
  uint32_t four;
  __builtin_memcpy(&four, halves ? q + 8 * k + 4 * (c % 8) : q + 16 * k + 4 * c, sizeof four);
  return static_cast<int32_t>(halves ? four >> (c < 8 ? 0 : 4) & 0x0F0F0F0F : four);
}

}  // namespace

bool linear(const Parallel& parallel, const Layer* layers, int64_t count) {
  const size_t table = whole_lines(count * sizeof(Call));
  size_t bytes = table;
  for (int64_t i = 0; i < count; ++i) bytes += Call(layers[i]).scratch_bytes();
  auto* memory = static_cast<int8_t*>(aligned_alloc(kLine, bytes));
  if (memory == nullptr) return false;
  Calls calls{reinterpret_cast<Call*>(memory), count};
  int8_t* scratch = memory + table;
  int64_t strips = 0, pieces = 0;
  for (int64_t i = 0; i < count; ++i) {
    Call* call = new (calls.all + i) Call(layers[i]);
    call->use(scratch);
    scratch += call->scratch_bytes();
    call->first_strip = strips;
    call->first_piece = pieces;
    strips += call->strips();
    pieces += call->pieces();
  }
  if (pieces > 0) {
    parallel.run(strips, round_strip, &calls);
    parallel.run(pieces, multiply_band, &calls);
  }
  free(memory);
  return true;
}

void column(const Weights& w, int64_t index, float* y) {
  const Shape& shape = w.shape;
  const uint8_t* p = w.tiles + index / kTile * static_cast<int64_t>(shape.tile_bytes());
  const int c = static_cast<int>(index % kTile);
  const __m128i floats = _mm_load_si128(reinterpret_cast<const __m128i*>(kFloats));
  const __m256i middle = _mm256_set1_epi32(shape.middle());
  for (int g = 0; g < shape.inner; g += shape.group, p += shape.group_bytes()) {
    const __m256 scale = _mm256_set1_ps(stored(p, c));
    const __m256 offset =
        shape.offsets ? _mm256_set1_ps(stored(p + shape.scales_bytes(), c)) : _mm256_setzero_ps();
    const uint8_t* q = p + shape.head_bytes();
    for (int k = 0; k < shape.group; k += 8, y += 8) {
      __m128i eight = _mm_set_epi32(0, 0, four_of(shape, q, k + 4, c), four_of(shape, q, k, c));
      if (shape.floats) eight = _mm_shuffle_epi8(floats, eight);
      const __m256i integers = _mm256_sub_epi32(_mm256_cvtepu8_epi32(eight), middle);
      _mm256_storeu_ps(y, _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(integers), offset));
    }
  }
}

}  // namespace lepton
