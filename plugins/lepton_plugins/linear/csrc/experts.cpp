// Choices are sorted by expert; then those that are chosen take all their tokens at once, as many
// experts together as there is room for: of a step all of them.
#include "experts.h"

#include <cstdlib>
#include <cstring>

namespace lepton {
namespace {

constexpr int64_t kRoomRows = 64;       // of choices that experts take together, if one has not more
constexpr int64_t kPieceColumns = 128;  // that a thread sums up

// One call: the choices in the order of experts, and room for some of them.
struct Mixing {
  const Experts& experts;
  const Choices& choices;
  float* y;
  int64_t* starts;  // count + 1: where in `order` those of an expert begin
  int64_t* order;   // numbers of choices
  Layer* layers;    // of the experts at hand
  int64_t room = 0;
  float *gathered = nullptr, *hidden = nullptr, *returned = nullptr;
  int64_t first = 0, last = 0;  // choices at hand, by `order`

  int64_t width() const { return experts.down.columns; }

  int64_t rows_of(int64_t e) const { return starts[e + 1] - starts[e]; }

  void sort() {
    const int64_t pairs = choices.tokens * choices.chosen;
    memset(starts, 0, (experts.count + 1) * sizeof(int64_t));
    for (int64_t i = 0; i < pairs; ++i) ++starts[choices.experts[i] + 1];
    for (int64_t e = 0; e < experts.count; ++e) starts[e + 1] += starts[e];
    // Each start moves to its end, which is the next one's start.
    for (int64_t i = 0; i < pairs; ++i) order[starts[choices.experts[i]]++] = i;
    for (int64_t e = experts.count; e > 0; --e) starts[e] = starts[e - 1];
    starts[0] = 0;
    room = pairs < kRoomRows ? pairs : kRoomRows;
    for (int64_t e = 0; e < experts.count; ++e) room = rows_of(e) > room ? rows_of(e) : room;
  }

  // Experts from `e` on, as many as there is room for; `e` becomes the next one.
  bool add(const Parallel& parallel, int64_t* e, const float* x) {
    const int64_t begin = *e;
    first = starts[begin];
    while (*e < experts.count && starts[*e + 1] - first <= room) ++*e;
    last = starts[*e];
    for (int64_t i = first; i < last; ++i) {
      const int64_t token = order[i] / choices.chosen;
      memcpy(gathered + (i - first) * width(), x + token * width(), width() * sizeof(float));
    }
    const bool done = run(parallel, begin, *e, experts.gate_up, gathered, hidden) &&
                      run(parallel, begin, *e, experts.down, hidden, returned);
    if (done && last > first) parallel.run((width() - 1) / kPieceColumns + 1, sum, this);
    return done;
  }

  // One of the two layers of each expert that is chosen.
  bool run(const Parallel& parallel, int64_t begin, int64_t end, const Weights& of_first,
           const float* from, float* to) {
    int64_t count = 0;
    for (int64_t e = begin; e < end; ++e) {
      if (rows_of(e) == 0) continue;
      Weights w = of_first;
      w.tiles += e * Experts::stride(w);
      if (w.bias != nullptr) w.bias += e * w.columns;
      const int64_t row = starts[e] - first;
      layers[count++] = {w, from + row * w.shape.inner, rows_of(e), to + row * w.results()};
    }
    return linear(parallel, layers, count);
  }

  // What the experts at hand gave to their tokens, of some columns, by the order of the experts.
  static void sum(void* user, size_t piece) {
    const Mixing& m = *static_cast<const Mixing*>(user);
    const int64_t low = static_cast<int64_t>(piece) * kPieceColumns;
    const int64_t high = low + kPieceColumns < m.width() ? low + kPieceColumns : m.width();
    for (int64_t i = m.first; i < m.last; ++i) {
      const float share = m.choices.shares[m.order[i]];
      float* to = m.y + m.order[i] / m.choices.chosen * m.width();
      const float* from = m.returned + (i - m.first) * m.width();
      for (int64_t k = low; k < high; ++k) to[k] += share * from[k];
    }
  }
};

}  // namespace

bool mix(const Parallel& parallel, const Experts& experts, const Choices& choices, const float* x,
         float* y) {
  if (choices.tokens == 0) return true;  // y may be null then, which memset must not be given
  const int64_t pairs = choices.tokens * choices.chosen, width = experts.down.columns;
  memset(y, 0, choices.tokens * width * sizeof(float));
  auto* places = static_cast<int64_t*>(malloc((experts.count + 1 + pairs) * sizeof(int64_t)));
  auto* layers = static_cast<Layer*>(malloc(experts.count * sizeof(Layer)));
  Mixing mixing{experts, choices, y, places, places + experts.count + 1, layers};
  bool done = places != nullptr && layers != nullptr;
  float* room = nullptr;
  if (done) {
    mixing.sort();
    const int64_t rows = mixing.room, inner = experts.gate_up.results();
    room = static_cast<float*>(malloc((rows * (2 * width + inner) + 1) * sizeof(float)));
    done = room != nullptr;
    mixing.gathered = room;
    mixing.returned = room + rows * width;
    mixing.hidden = room + 2 * rows * width;
  }
  for (int64_t e = 0; done && e < experts.count;) done = mixing.add(parallel, &e, x);
  free(room);
  free(layers);
  free(places);
  return done;
}

}  // namespace lepton
