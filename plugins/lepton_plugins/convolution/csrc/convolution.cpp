// Bands of channels are independent: each reads its piece of the past before it writes that of the
// present, so the two may be one. A row of a band is read once from memory and, for the tokens that
// follow, from the first cache.
#include "convolution.h"

#include "../../toolchain/csrc/vector.h"

namespace lepton {
namespace {

constexpr int64_t kRoom = 4096;  // floats, for the past of a band
constexpr int64_t kBands = 16;   // of a row, at least, where there are so many channels
constexpr int64_t kLine = 16;    // floats

// Some channels of one row of the batch.
class Band {
 public:
  Band(const Convolution& c, int64_t row, int64_t first, int64_t width)
      : c_(c), x_(c.x + row * c.tokens * c.channels + first),
        y_(c.y + row * c.tokens * c.channels + first), first_(first), width_(width) {
    const int64_t kept = c.count - 1, at = (row * c.channels + first) * kept;
    for (int64_t t = 0; t < kept; ++t) {
      for (int64_t i = 0; i < width; ++i) past_[t * width + i] = c.past[at + i * kept + t];
    }
    present_ = c.present + at;
  }

  // Count is that of the taps, or 0 for any.
  template <int Count>
  void run() const {
    const float* rows[kMostTaps];
    for (int64_t t = 0; t < c_.tokens; ++t) {
      for (int64_t tap = 0; tap < c_.count; ++tap) rows[tap] = token(t - c_.count + 1 + tap);
      float* y = y_ + t * c_.channels;
      int64_t i = 0;
      for (; i + 8 <= width_; i += 8) eight<Count>(Whole(), rows, i, y + i);
      if (i < width_) eight<Count>(Ragged(width_ - i), rows, i, y + i);
    }
  }

  void keep() const {
    const int64_t kept = c_.count - 1;
    for (int64_t t = 0; t < kept; ++t) {
      const float* row = token(c_.tokens - kept + t);
      for (int64_t i = 0; i < width_; ++i) present_[i * kept + t] = row[i];
    }
  }

 private:
  const float* token(int64_t t) const {
    return t < 0 ? past_ + (t + c_.count - 1) * width_ : x_ + t * c_.channels;
  }

  // Channels from i on of the token whose rows these are.
  template <int Count, class Lanes>
  void eight(const Lanes& lanes, const float* const* rows, int64_t i, float* y) const {
    const int64_t count = Count == 0 ? c_.count : Count;
    const float* taps = c_.taps + first_ + i;
    __m256 sum = c_.bias != nullptr ? lanes.load(c_.bias + first_ + i) : _mm256_setzero_ps();
    for (int64_t tap = 0; tap < count; ++tap) {
      sum = _mm256_fmadd_ps(lanes.load(taps + tap * c_.channels), lanes.load(rows[tap] + i), sum);
    }
    lanes.store(y, c_.silu ? _mm256_mul_ps(sum, sigmoid(Eight{sum}).v) : sum);
  }

  const Convolution& c_;
  const float* x_;
  float *y_, *present_;
  int64_t first_, width_;
  float past_[kRoom];
};

struct Call {
  const Convolution& c;
  int64_t width, bands;

  void run(int64_t index) const {
    const int64_t first = index % bands * width, left = c.channels - first;
    const Band band(c, index / bands, first, left < width ? left : width);
    switch (c.count) {
      case 3: band.run<3>(); break;
      case 4: band.run<4>(); break;
      default: band.run<0>();
    }
    band.keep();
  }
};

}  // namespace

void convolve(const Parallel& parallel, const Convolution& c) {
  if (c.channels == 0 || c.batch == 0) return;
  const int64_t most = kRoom / c.count / kLine * kLine;
  const int64_t even = (c.channels / kBands + kLine - 1) / kLine * kLine;
  const int64_t width = even < kLine ? kLine : even < most ? even : most;
  Call call{c, width, (c.channels + width - 1) / width};
  parallel.run(
      c.batch * call.bands,
      [](void* user, size_t i) { static_cast<const Call*>(user)->run(static_cast<int64_t>(i)); },
      &call);
}

}  // namespace lepton
