// The loops of what follows products, over any lanes that 16 columns are a multiple of.
#pragma once
#include <type_traits>

#include "tiles.h"

namespace lepton {
namespace {

// A row of y; what is no whole lanes at its end goes by a place of its own.
template <class Lanes, class Each>
inline void finish_row(int columns, float* y, Each each) {
  int c = 0;
  for (; c + Lanes::kLanes <= columns; c += Lanes::kLanes) each(c).store(y + c);
  if (c == columns) return;
  float rest[Lanes::kLanes];
  each(c).store(rest);
  __builtin_memcpy(y + c, rest, (columns - c) * sizeof(float));
}

// An activation as a constant: its own are then read once for all columns.
template <class Body>
inline void with(Activation activation, Body body) {
  switch (activation) {
    case Activation::kNone: return body(std::integral_constant<Activation, Activation::kNone>());
    case Activation::kGelu: return body(std::integral_constant<Activation, Activation::kGelu>());
    case Activation::kGeluTanh: return body(std::integral_constant<Activation, Activation::kGeluTanh>());
    case Activation::kSilu: return body(std::integral_constant<Activation, Activation::kSilu>());
    case Activation::kRelu2: return body(std::integral_constant<Activation, Activation::kRelu2>());
  }
}

template <class Lanes>
void finish(const Totals& totals, Activation activation, const Corner& to) {
  with(activation, [&](auto known) {
    for (int m = 0; m < to.rows; ++m) {
      const float* row = totals.at(0, m);
      finish_row<Lanes>(to.columns, to.y + m * to.stride,
                        [&](int c) { return activated(known.value, Lanes::load(row + c)); });
    }
  });
}

template <class Lanes, class Meet>
inline void finish_pairs(const Totals& totals, const Corner& to, Meet meet) {
  for (int m = 0; m < to.rows; ++m) {
    const float* row = totals.at(0, m);
    finish_row<Lanes>(to.columns, to.y + m * to.stride, [&](int c) {
      const float* gate = row + c / kTile * 2 * kTile + c % kTile;
      return meet(Lanes::load(gate), Lanes::load(gate + kTile));
    });
  }
}

template <class Lanes>
void finish_gated(const Totals& totals, Activation activation, const Gate& kind, const Corner& to) {
  if (!kind.plain()) {
    return finish_pairs<Lanes>(totals, to, [&](Lanes g, Lanes u) { return kind.met(g, u); });
  }
  with(activation, [&](auto known) {
    finish_pairs<Lanes>(totals, to, [&](Lanes g, Lanes u) { return activated(known.value, g) * u; });
  });
}

}  // namespace
}  // namespace lepton
