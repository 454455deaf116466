"""How a picture becomes tiles of one size, of models that take it in several pieces."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lepton_compile.export.source.objects import read_object
from lepton_compile.runtime.loader_tiles import EDGE, MOST_PIXELS, MOST_TILES, RATIO

__all__ = ["Tiles", "by_edge", "by_ratio", "processor_cuts"]

CUTS = {"internvl": True, "ayavision": True, "qianfanocr": True, "gotocr2": False}
"""Whether the processor of a family has pictures cut, whatever its image processor says."""

FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "config.json",
)
"""Where the class of a processor stands, and in this order."""


@dataclass(frozen=True)
class Tiles:
    """The grid that pictures are cut by; where it has several tiles the whole is one more.

    Attributes:
        kind: of grid. By ``longest-edge`` a picture is resized until its longer side has that many
            rows or columns, and then up to whole tiles; by ``closest-ratio`` to the grid that has
            about its form.
        most: tiles of a grid, at most; of 1 the picture is not cut.
        edge: rows or columns of the longer side, of the first kind.
        least: tiles of a grid, of the second.
    """

    kind: str
    most: int
    edge: int = 0
    least: int = 0

    def entry(self) -> dict[str, Any]:
        """As the manifest has it: what its kind goes by."""
        return {name: value for name, value in asdict(self).items() if value}

    def fit(self, size: tuple[int, int]) -> bool:
        """Whether a loader would hold so many of ``size`` in memory."""
        return self.most <= MOST_TILES and self.most * size[0] * size[1] <= MOST_PIXELS


def by_edge(edge: int, side: int, split: bool) -> Tiles:
    """Those of Idefics3, whose tiles have ``side`` rows and columns."""
    along = -(-(edge + edge % 2) // side)  # a square's other side is made even
    return Tiles(EDGE, along**2 if split else 1, edge)


def by_ratio(least: int, most: int) -> Tiles:
    """Those of GOT-OCR 2 and InternVL."""
    return Tiles(RATIO, most, least=least)


def processor_cuts(folder: Path) -> bool | None:
    """Whether the processor of a model asks for tiles, as transformers finds its class.

    None where it leaves that to the image processor, or is not known.

    Raises:
        SourceError: a file is damaged.
    """
    named = (read_object(folder / name).get("processor_class") for name in FILES)
    name = next(filter(None, named), None) or read_object(folder / "config.json").get("model_type")
    return CUTS.get(str(name).removesuffix("Processor").replace("_", "").lower())
