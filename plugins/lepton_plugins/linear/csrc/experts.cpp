// Choices are sorted by expert; then each expert that is chosen takes all its tokens at once.
#include "experts.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace lepton {
namespace {

// One call: the choices in the order of experts, and room for the tokens of the busiest one.
struct Mixing {
  const Experts& experts;
  const Choices& choices;
  int64_t* starts;  // count + 1: where in `order` those of an expert begin
  int64_t* order;   // numbers of choices
  float *gathered, *hidden, *returned;

  void sort() const {
    const int64_t pairs = choices.tokens * choices.chosen;
    memset(starts, 0, (experts.count + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < pairs; ++i) ++starts[choices.experts[i] + 1];
    for (int64_t e = 0; e < experts.count; ++e) starts[e + 1] += starts[e];
    // Each start moves to its end, which is the next one's start.
    for (int64_t i = 0; i < pairs; ++i) order[starts[choices.experts[i]]++] = i;
    for (int64_t e = experts.count; e > 0; --e) starts[e] = starts[e - 1];
    starts[0] = 0;
  }

  bool add(const Parallel& parallel, int64_t e, const float* x, float* y) const {
    const int64_t width = experts.down.columns, first = starts[e], rows = starts[e + 1] - first;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t token = order[first + i] / choices.chosen;
      memcpy(gathered + i * width, x + token * width, width * sizeof(float));
    }
    Weights gate_up = experts.gate_up, down = experts.down;
    for (Weights* w : {&gate_up, &down}) {
      w->tiles += e * Experts::stride(*w);
      if (w->zeros != nullptr) w->zeros += e * Experts::zeros_stride(*w);
      if (w->bias != nullptr) w->bias += e * w->columns;
    }
    if (!linear(parallel, gate_up, gathered, rows, hidden)) return false;
    if (!linear(parallel, down, hidden, rows, returned)) return false;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t choice = order[first + i];
      const float share = choices.shares[choice];
      float* to = y + choice / choices.chosen * width;
      const float* from = returned + i * width;
      for (int64_t k = 0; k < width; ++k) to[k] += share * from[k];
    }
    return true;
  }
};

int64_t busiest(const Mixing& mixing) {
  int64_t most = 0;
  for (int64_t e = 0; e < mixing.experts.count; ++e) {
    const int64_t rows = mixing.starts[e + 1] - mixing.starts[e];
    if (rows > most) most = rows;
  }
  return most;
}

}  // namespace

bool mix(const Parallel& parallel, const Experts& experts, const Choices& choices, const float* x,
         float* y) {
  const int64_t pairs = choices.tokens * choices.chosen, width = experts.down.columns;
  memset(y, 0, choices.tokens * width * sizeof(float));
  auto* places = static_cast<int64_t*>(malloc((experts.count + 1 + pairs) * sizeof(int64_t)));
  if (places == nullptr) return false;
  Mixing mixing{experts, choices, places, places + experts.count + 1, nullptr, nullptr, nullptr};
  mixing.sort();
  const int64_t rows = busiest(mixing), inner = experts.gate_up.results();
  auto* room = static_cast<float*>(malloc((rows * (2 * width + inner) + 1) * sizeof(float)));
  bool done = room != nullptr;
  mixing.gathered = room;
  mixing.returned = room + rows * width;
  mixing.hidden = room + 2 * rows * width;
  for (int64_t e = 0; done && e < experts.count; ++e) {
    if (mixing.starts[e] < mixing.starts[e + 1]) done = mixing.add(parallel, e, x, y);
  }
  free(room);
  free(places);
  return done;
}

}  // namespace lepton
