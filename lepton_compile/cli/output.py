"""Where commands write: readable tables for people, one JSON document for machines."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, TypeVar

import click
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from lepton_compile.cli.narrow import RoomyTable
from lepton_compile.cli.streams import StreamConsole, say

__all__ = [
    "bytes_text",
    "clean",
    "console",
    "counts_text",
    "emit_json",
    "json_option",
    "many_text",
    "number_text",
    "seconds_text",
    "show",
    "stdout_for_json_only",
    "table",
]

F = TypeVar("F", bound=Callable[..., Any])

WHOLE = 34
"""Characters of a name that is never broken."""

NARROWEST, UNKNOWN = 20, 80
"""Characters of a line at least, and where the terminal does not say how many it has."""


def json_option(command: F) -> F:
    """Adds ``--json`` as the parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(
        command
    )


def console(*, stderr: bool = False) -> Console:
    """A console for the stream as it is now; plain where the stream is not a terminal.

    Text is no markup: paths, texts and names have brackets of their own. Styles are ``Text``.
    """
    made = StreamConsole(stderr=stderr, markup=False, highlight=False, emoji=False)
    # COLUMNS=0 says that nobody knows; in a column or two rich leaves out what has no room.
    if made.width < NARROWEST:
        made.width = NARROWEST if made.width > 0 else UNKNOWN
    return made


def show(parts: Iterable[RenderableType]) -> None:
    """Prints one part after the other on stdout."""
    out = console()
    for part in parts:
        out.print(part)


def emit_json(data: object) -> None:
    """Writes one JSON document to stdout; letters that its encoding lacks are escaped."""
    told = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")
    say(json.dumps(clean(data), indent=2, ensure_ascii=not told))


def clean(data: object) -> object:
    """Data that JSON can hold: tuples become lists, paths text, infinity and NaN null."""
    if isinstance(data, Mapping):
        return {str(key): clean(value) for key, value in data.items()}
    if isinstance(data, str | bool | int | None):
        return data
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, PurePath):
        return str(data)
    if isinstance(data, Sequence | set | frozenset):
        return [clean(value) for value in data]
    if hasattr(data, "as_dict"):
        return clean(data.as_dict())
    if hasattr(data, "tolist"):
        return clean(data.tolist())
    return str(data)


@contextlib.contextmanager
def stdout_for_json_only(as_json: bool) -> Iterator[None]:
    """While the work is done, whatever a library prints goes to stderr in JSON mode."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        yield


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table that fits 80 columns, and is a list where a terminal has fewer than it needs.

    A column whose name ends in ``>`` is set to the right.
    """
    shown = RoomyTable(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    shown.pad_edge = False
    shown.min_width = len(title)  # a title is not broken where there is room for it
    for at, column in enumerate(columns):
        right = column.endswith(">")
        name = column.removesuffix(">")
        # Names are searched for and copied: those of the first column stay whole.
        longest = max((len(str(row[at])) for row in rows), default=0)
        whole = at == 0 and len(columns) > 1 and longest <= WHOLE
        justify: Literal["left", "right"] = "right" if right else "left"
        shown.add_column(name, justify=justify, overflow="fold", no_wrap=whole)
    for row in rows:
        shown.add_row(*("" if cell is None else str(cell) for cell in row))
    return shown


def bytes_text(size: float) -> str:
    """A size as people say it: 1536 -> ``1.5 kB`` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000 or unit == "GB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.4g} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def seconds_text(seconds: float) -> str:
    """A duration with its unit: 0.0031 -> ``3.1 ms``, 95 -> ``1 min 35 s``."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def counts_text(counts: Mapping[str, int]) -> str:
    """Names with their counts in one line, which breaks between pairs alone."""
    return " · ".join(f"{name}\N{MULTIPLICATION SIGN}{count}" for name, count in counts.items())


def number_text(value: float | None, digits: int = 4) -> str:
    """A number in few characters; a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    whole = 10**digits - 0.5 <= abs(value) < float("inf")  # where :g has an exponent
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def many_text(count: int, noun: str) -> str:
    """A count with its noun: ``1 thread``, ``2 threads``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
