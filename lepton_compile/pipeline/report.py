"""What the passes did, as data: counts, refusals with their reasons, seconds and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from lepton_compile.errors import GateError
from lepton_passes.contract import Refusal

__all__ = ["PassReport", "PipelineReport"]


@dataclass(frozen=True)
class PassReport:
    """One pass.

    Attributes:
        name: as recipes name it.
        counts_as: what ``expect`` calls the thing it made, None for clean-up.
        fired: how often it rewrote something, counted for each layer.
        refusals: matches it declined.
        nodes: nodes in the graph and its functions, before and after.
        seconds: wall time of the pass itself.
        error: error the pass added, as a part of the output's size; None where not measured.
    """

    name: str
    counts_as: str | None
    fired: int
    refusals: tuple[Refusal, ...]
    nodes: tuple[int, int]
    seconds: float
    error: float | None = None


@dataclass
class PipelineReport:
    """All passes in order."""

    passes: list[PassReport] = field(default_factory=list)

    def fired(self, name: str) -> int:
        """How often ``name`` (a pass, or what passes count as) fired."""
        return sum(p.fired for p in self.passes if name in (p.name, p.counts_as))

    def refusals(self, name: str) -> list[Refusal]:
        """What the passes behind ``name`` declined."""
        return [r for p in self.passes if name in (p.name, p.counts_as) for r in p.refusals]

    def names(self) -> list[str]:
        """Every name that ``fired`` knows."""
        return sorted({n for p in self.passes for n in (p.name, p.counts_as) if n})

    def demand(self, expected: Mapping[str, int]) -> None:
        """Compare with the counts a recipe expects.

        Raises:
            GateError: a count is missed; every miss is listed with the refusals that explain it.
        """
        lines = [
            self._miss(name, count) for name, count in expected.items() if self.fired(name) != count
        ]
        if lines:
            raise GateError(
                "the passes did not fire as often as the recipe expects",
                where="passes.expect",
                found="; ".join(lines),
                available=self.names(),
                hint="see the refusals, or correct the counts",
            )

    def _miss(self, name: str, count: int) -> str:
        reasons = sorted({f"{r.node}: {r.reason}" for r in self.refusals(name)})
        why = f" ({'; '.join(reasons[:4])})" if reasons else ""
        return f"{name}: expected {count}, fired {self.fired(name)}{why}"

    def as_dict(self) -> list[dict[str, object]]:
        """JSON-ready."""
        return [asdict(p) for p in self.passes]
