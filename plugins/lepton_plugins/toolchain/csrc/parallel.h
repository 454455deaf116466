// Work that is shared out among threads, whoever owns them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace lepton {

struct Parallel {
  // Run body(user, i) for every i below count, in any order; returns when all are done.
  virtual void run(int64_t count, void (*body)(void* user, size_t i), void* user) const = 0;
};

}  // namespace lepton
