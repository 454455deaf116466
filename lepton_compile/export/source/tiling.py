"""How a picture becomes tiles of one size, of models that take it in several pieces."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lepton_compile.runtime.loader_tiles import EDGE, MOST_PIXELS, MOST_TILES

__all__ = ["Tiles", "by_edge"]


@dataclass(frozen=True)
class Tiles:
    """The grid that pictures are cut by; where it has several tiles the whole is one more.

    Attributes:
        kind: of grid. By ``longest-edge`` a picture is resized until its longer side has that many
            rows or columns, and then up to whole tiles.
        most: tiles of a grid, at most; of 1 the picture is not cut.
        edge: rows or columns of the longer side.
    """

    kind: str
    most: int
    edge: int

    def entry(self) -> dict[str, Any]:
        """As the manifest has it."""
        return asdict(self)

    def fit(self, size: tuple[int, int]) -> bool:
        """Whether a loader would hold so many of ``size`` in memory."""
        return self.most <= MOST_TILES and self.most * size[0] * size[1] <= MOST_PIXELS


def by_edge(edge: int, side: int, split: bool) -> Tiles:
    """Those of Idefics3, whose tiles have ``side`` rows and columns."""
    along = -(-(edge + edge % 2) // side)  # a square's other side is made even
    return Tiles(EDGE, along**2 if split else 1, edge)
