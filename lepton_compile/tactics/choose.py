"""From what was measured to a kernel.

A candidate replaces the usual kernel where it is better by a clear margin, and no less exact: off
by about as much as the usual one, or by so little that the model bears it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lepton_compile.tactics.clock import BUSY
from lepton_compile.tactics.measure import Measured
from lepton_compile.tactics.phases import Wanted
from lepton_passes.lowering.ort.choices import Choice, Tactic

__all__ = ["MARGIN", "NAMES", "Verdict", "choose"]

MARGIN = 1.3
"""How much better another kernel has to be: so that chance changes no build, and because layers
that are timed alone are not a model, whose layers share caches and memory."""

CLEARLY = 1.25
"""Error over that of the usual kernel, up to which another kernel counts as no less exact."""

NAMES: Mapping[Tactic, str] = {
    "native": "our kernel",
    "nbits": "MatMulNBits",
    "dynamic": "DynamicQuantizeMatMul",
}


@dataclass(frozen=True)
class Verdict:
    """What a layer gets.

    Attributes:
        tactic: the kernel.
        why: in a clause.
        gains: of each candidate over the usual kernel: 2 is twice as fast, or half the bytes.
        vetoed: candidates that are off by too much, and by how much.
        certain: it may be kept for later builds.
    """

    tactic: Tactic
    why: str
    gains: Mapping[Tactic, float] = field(default_factory=dict)
    vetoed: Mapping[Tactic, str] = field(default_factory=dict)
    certain: bool = True

    def choice(self) -> Choice:
        """For the passes."""
        return Choice(self.tactic, self.why)


def choose(measured: Measured, wanted: Wanted) -> Verdict:
    """The kernel of a layer, by what was measured of it."""
    usual = measured.usual
    if usual not in measured.errors:
        return Verdict(usual, "no candidate runs here", certain=False)
    costs = {tactic: _cost(measured, tactic, wanted) for tactic in measured.errors}
    gains = {tactic: costs[usual] / cost for tactic, cost in costs.items()}
    vetoed = _vetoed(measured, wanted.budget)
    if measured.spread > BUSY:
        why = f"the machine was busy: times of a call differed by {measured.spread:.1f} times"
        return Verdict(usual, why, gains, vetoed, certain=False)
    best = max((t for t in gains if t not in vetoed), key=lambda t: gains[t])
    if gains[best] >= MARGIN:
        return Verdict(best, _better(best, gains[best], timed=bool(wanted.phases)), gains, vetoed)
    failed = measured.failed.get("native")
    why = f"our kernel does not run here: {failed}" if failed else "none is clearly better"
    return Verdict(usual, why, gains, vetoed)


def _cost(measured: Measured, tactic: Tactic, wanted: Wanted) -> float:
    """Seconds of all phases, or bytes."""
    if not wanted.phases:
        return measured.bytes[tactic]
    seconds = measured.seconds[tactic]
    return sum(phase.times * seconds[phase.rows] for phase in wanted.phases)


def _vetoed(measured: Measured, budget: float) -> dict[Tactic, str]:
    usual = measured.errors[measured.usual]
    most = max(budget, CLEARLY * usual)
    return {
        tactic: f"off by {error:.2%} of the result, {NAMES[measured.usual]} by {usual:.2%}"
        for tactic, error in measured.errors.items()
        if not error <= most and tactic != measured.usual
    }


def _better(tactic: Tactic, gain: float, *, timed: bool) -> str:
    how = f"is {gain:.1f} times as fast here" if timed else f"takes {gain:.1f} times less memory"
    return f"measured: {NAMES[tactic]} {how}"
