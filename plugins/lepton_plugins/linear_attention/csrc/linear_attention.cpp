// Columns of a head's matrix are independent, so a task may have some of them.
#include "linear_attention.h"

#include "many_tokens.h"
#include "one_token.h"

namespace lepton {
namespace {

constexpr int64_t kTasks = 16;  // are enough to share out
constexpr int64_t kPart = 64;   // columns of one, where heads are fewer

struct Call {
  const LinearAttention& a;
  int64_t columns, parts;

  void run(int64_t index) const {
    const int64_t first = index % parts * columns, left = a.width - first;
    const Part part{a, index / parts, first, left < columns ? left : columns};
    // Numbers that decay to nothing are to be zero: arithmetic on denormal ones is slow.
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON);
    if (a.tokens == 1) {
      one_token(part);
    } else {
      many_tokens(part);
    }
    _mm_setcsr(mode);
  }
};

}  // namespace

void attend_linearly(const Parallel& parallel, const LinearAttention& a) {
  const int64_t matrices = a.batch * a.heads;
  if (matrices == 0 || a.width == 0) return;
  const int64_t most = kRoom / a.depth / kPanel * kPanel;
  const int64_t wanted = matrices < kTasks ? kPart : a.width;
  const int64_t columns = wanted < most ? wanted : most;
  Call call{a, columns, (a.width + columns - 1) / columns};
  parallel.run(
      matrices * call.parts,
      [](void* user, size_t i) { static_cast<const Call*>(user)->run(static_cast<int64_t>(i)); },
      &call);
}

}  // namespace lepton
