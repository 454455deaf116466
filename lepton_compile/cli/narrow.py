"""A table that becomes a list of its rows where its columns would break the words in them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

__all__ = ["WORD", "RoomyTable"]

WORD = 12
"""Characters of a word that a column has room for, names that stay whole aside: longer ones, such
as paths, break anyway."""

EDGES, GAP = 2, 3
"""Characters beside all columns and between two."""


class RoomyTable(Table):
    """Columns where there is room for them; else the rows one below the other:

    engines/ort-cpu/model.onnx
      size: 118 kB
      state: intact
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._needed() <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield from self._listed()

    def _needed(self) -> int:
        """Characters in which no column breaks a word that it need not."""
        widths = []
        for column in self.columns:
            cells = [str(cell) for cell in column.cells]
            words = cells if column.no_wrap else [w for cell in cells for w in cell.split()]
            longest = max(map(len, words), default=0)
            own = longest if column.no_wrap else min(longest, WORD)
            widths.append(max(own, len(str(column.header))))
        return sum(widths) + GAP * (len(widths) - 1) + EDGES

    def _listed(self) -> Iterator[RenderableType]:
        """The title, then of each row its name, and what else it has below that."""
        if self.title:
            yield Text(str(self.title), style="bold")
        names = [str(column.header) for column in self.columns]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            first, *rest = (Text(str(cell), overflow="fold") for cell in row)
            yield first
            for name, cell in zip(names[1:], rest, strict=True):
                if cell:
                    yield Padding(Text(f"{name}: ", overflow="fold") + cell, (0, 0, 0, 2))
        yield Text()
