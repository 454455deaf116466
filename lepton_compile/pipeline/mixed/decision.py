"""What ``quantize: auto`` became: a mapping for ``quantize`` without a search, and the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .units import Unit

__all__ = ["Decision", "Kind", "kinds_of"]


@dataclass(frozen=True)
class Kind:
    """Weights of one kind, over all layers.

    Attributes:
        name: such as ``mlp.down_proj``.
        four, eight, kept: how many are stored in 4 bits, in 8, and as they were.
        estimated: what these choices cost, in the loss that was measured.
    """

    name: str
    four: int
    eight: int
    kept: int
    estimated: float


@dataclass(frozen=True)
class Decision:
    """A choice for each weight of one engine.

    Attributes:
        quantize: the choice as ``quantize`` of a recipe.
        kinds: the same, counted.
        measure: what the loss is.
        budget: the loss that was allowed.
        estimated: the sum of the estimates.
        measured: the loss on the calibration text.
        tries: choices that were measured.
        bytes: of the weights that were chosen for.
    """

    quantize: dict[str, Any]
    kinds: tuple[Kind, ...]
    measure: str
    budget: float
    estimated: float
    measured: float
    tries: int
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **{name: getattr(self, name) for name in ("quantize", "measure", "tries", "bytes")},
            **{name: float(f"{getattr(self, name):.4g}") for name in _LOSSES},
            "kinds": [
                {**vars(kind), "estimated": float(f"{kind.estimated:.4g}")} for kind in self.kinds
            ],
        }


_LOSSES = ("budget", "estimated", "measured")


def kinds_of(
    units: Sequence[Unit], bits: Sequence[int | None], losses: Sequence[float]
) -> tuple[Kind, ...]:
    """The choices counted by kind, in the order of the units."""
    found: dict[str, Kind] = {}
    for unit, chosen, loss in zip(units, bits, losses, strict=True):
        had = found.get(unit.kind, Kind(unit.kind, 0, 0, 0, 0.0))
        count = len(unit.parts)
        found[unit.kind] = Kind(
            unit.kind,
            had.four + count * (chosen == 4),
            had.eight + count * (chosen == 8),
            had.kept + count * (chosen is None),
            had.estimated + loss,
        )
    return tuple(found.values())
