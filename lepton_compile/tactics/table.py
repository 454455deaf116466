"""The table of a build: a kernel for each kind of quantized linear layer, and what it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lepton_compile.progress import Step
from lepton_compile.tactics.choose import NAMES, Verdict, choose
from lepton_compile.tactics.clock import Clock
from lepton_compile.tactics.machine import Machine
from lepton_compile.tactics.measure import SMALLEST, Bench, Measured
from lepton_compile.tactics.phases import Wanted
from lepton_compile.tactics.store import Store
from lepton_passes.lowering.ort.choices import Choice, Layer
from lepton_plugins.linear.spec import ACTIVATIONS

__all__ = ["NEEDED", "Tactics", "described"]

NEEDED = 192 << 20
"""Bytes that measuring takes beside what a build holds."""

UNKNOWN = "none was ever timed on this machine, which a build does"
SMALL = "too small to be timed"
BUSY = "the machine was too busy to time others"


@dataclass(frozen=True)
class _Row:
    """A layer of the table; ``kept`` from an earlier build."""

    measured: Measured
    verdict: Verdict
    kept: bool


@dataclass
class Tactics:
    """Chooses for the passes of one engine; see ``lepton_passes.lowering.ort.choices``.

    Attributes:
        machine: that this holds for.
        wanted: what the recipe is after.
        store: of earlier builds.
        bench: runs candidates; ``None`` takes what the store has, and nothing else.
        exact: the engine asks onnxruntime for exact products of bytes; part of what is kept.
        why_not: asked before the first candidate runs: why none may; empty where they may.
        step: told about each layer that is measured.
    """

    machine: Machine
    wanted: Wanted
    store: Store
    bench: Bench | None = None
    exact: bool = False
    why_not: Callable[[], str] = lambda: ""
    step: Step = lambda *_: None
    rows: dict[Layer, _Row] = field(default_factory=dict, init=False)
    left: dict[Layer, str] = field(default_factory=dict, init=False)

    def __call__(self, layers: Sequence[Layer]) -> Mapping[Layer, Choice]:
        """Choose, and measure what is not known yet."""
        kept = self.store.read()
        known = {layer: kept.get(self._key(layer)) for layer in layers}
        found = {layer: m for layer, m in known.items() if m is not None and self._covers(m)}
        small = [layer for layer in layers if layer.columns * layer.rows < SMALLEST]
        new = self._measured([each for each in layers if each not in found and each not in small])
        verdicts = {each: choose(m, self.wanted) for each, m in {**found, **new}.items()}
        self.store.add({self._key(each): new[each] for each in new if verdicts[each].certain})
        self.rows = {
            each: _Row({**found, **new}[each], verdicts[each], each in found)
            for each in layers
            if each in verdicts
        }
        self.left |= dict.fromkeys(small, SMALL)
        return {layer: row.verdict.choice() for layer, row in self.rows.items()}

    def _measured(self, layers: Sequence[Layer]) -> dict[Layer, Measured]:
        """What candidates do now; nothing where none may run."""
        if not layers:
            return {}
        why = UNKNOWN if self.bench is None else self.why_not()
        if self.bench is None or why:
            self.left |= dict.fromkeys(layers, why)
            return {}
        counts, clock, found = self._counts(), Clock(), {}
        for index, layer in enumerate(layers):
            self.step(f"kernels for {described(layer)}", index, len(layers))
            found[layer] = self.bench.measure(layer, counts, clock)
        return found

    def entry(self) -> dict[str, Any] | None:
        """``tactics`` of the engine in the manifest: what was chosen, for what and where.

        There are no times in it: the same choices give the same bytes.
        """
        if not self.rows:
            return None
        return {
            "processor": self.machine.processor,
            "features": list(self.machine.features),
            "onnxruntime": self.machine.onnxruntime,
            "objective": self.wanted.objective,
            "rows": self._counts(),
            "layers": [{**asdict(e), "kernel": row.verdict.tactic} for e, row in self.rows.items()],
        }

    def report(self) -> dict[str, Any]:
        """``tactics`` of the report: what was measured, too."""
        return {
            "machine": self.machine.as_dict(),
            "objective": self.wanted.objective,
            "budget": self.wanted.budget,
            "phases": [asdict(phase) for phase in self.wanted.phases],
            "layers": [_reported(layer, row) for layer, row in self.rows.items()],
            "unmeasured": [
                {"layer": described(layer), "reason": why} for layer, why in self.left.items()
            ],
        }

    def remarks(self) -> list[str]:
        """Why layers get the usual kernel though another one might be better, in sentences."""
        reasons = [why for why in self.left.values() if why != SMALL]
        reasons += [BUSY for row in self.rows.values() if not row.verdict.certain]
        return [
            f"the usual kernels for {number} kind{'s' if number > 1 else ''} of layers: {why}"
            for why, number in Counter(reasons).items()
        ]

    def _key(self, layer: Layer) -> str:
        rows = ", ".join(map(str, self._counts())) or "no"
        return f"{described(layer)}; {rows} rows{'; exact' if self.exact else ''}"

    def _covers(self, measured: Measured) -> bool:
        """Whether what was kept has all that is asked of it."""
        return all(times.keys() >= {*self._counts()} for times in measured.seconds.values())

    def _counts(self) -> list[int]:
        return sorted({phase.rows for phase in self.wanted.phases})


def described(layer: Layer) -> str:
    """A layer in words, which no other has."""
    function = next(name for name, n in ACTIVATIONS.items() if n == layer.activation)
    gate = " gate" if layer.gated else ""
    parts = [
        f"{layer.columns} to {layer.rows}",
        f"{layer.bits} bits by {layer.group}" if layer.group else f"{layer.bits} bits",
        f"{function}{gate}" if layer.activation or layer.gated else "",
        "tied" if layer.tied else "",
        "decoder" if layer.decoder else "",
    ]
    return ", ".join(part for part in parts if part)


def _reported(layer: Layer, row: _Row) -> dict[str, Any]:
    measured, verdict = row.measured, row.verdict
    return {
        "layer": described(layer),
        "kernel": verdict.tactic,
        "name": NAMES[verdict.tactic],
        "usual": measured.usual,
        "why": verdict.why,
        "kept": row.kept,
        "candidates": [
            {
                "kernel": tactic,
                "name": NAMES[tactic],
                "seconds": {str(n): s for n, s in measured.seconds.get(tactic, {}).items()},
                "error": error,
                "bytes": measured.bytes[tactic],
                "gain": verdict.gains.get(tactic),
                "vetoed": verdict.vetoed.get(tactic),
            }
            for tactic, error in measured.errors.items()
        ],
        "failed": [{"name": NAMES[t], "reason": why} for t, why in measured.failed.items()],
    }
