"""Progress for whoever is watching: a live display, plain lines, or nothing.

Progress goes to stderr; stdout is for the result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from lepton_compile.cli.output import console
from lepton_compile.progress import NullProgress, Progress

__all__ = ["LiveProgress", "PlainProgress", "watching"]


@contextlib.contextmanager
def watching(*, quiet: bool) -> Iterator[Progress]:
    """The progress that suits stderr: live on a terminal, lines elsewhere, nothing when quiet."""
    target = console(stderr=True)
    if quiet:
        yield NullProgress()
        return
    if not _moves(target):
        plain = PlainProgress(target)
        yield plain
        plain.end()
        return
    live = LiveProgress(target)
    try:
        with live.display:
            yield live
            live.end()
    finally:
        live.display.stop()


def _moves(target: Console) -> bool:
    """Whether a line can be written over. FORCE_COLOR asks for colours also where that cannot be,
    as in the log of a CI; a dumb terminal keeps every line; and signs that the encoding lacks are
    spelled out, which takes more room than the display knows of."""
    written_over = target.is_terminal and target.file.isatty() and not target.is_dumb_terminal
    return written_over and not target.options.ascii_only


class PlainProgress:
    """A line when a stage begins, one with its seconds when it ends, and in between a step now and
    then: a log is not a display, and a stage of minutes must not look dead.

    Args:
        every: seconds without a line after which the next step gets one.
    """

    def __init__(self, target: Console, every: float = 10.0) -> None:
        self._console = target
        self._every = every
        self._name = ""
        self._begin = self._said = 0.0

    def stage(self, name: str, detail: str = "") -> None:
        """Writes the line."""
        self.end()
        self._name, self._begin = name, time.perf_counter()
        self._say(f"{name}: {detail}" if detail else name)

    def step(self, what: str, done: int, total: int) -> None:
        """Writes a line where the last one was long ago."""
        if time.perf_counter() - self._said >= self._every:
            seconds = time.perf_counter() - self._begin
            self._say(f"{self._name}: {what} ({done}/{total}) after {seconds:.0f} s")

    def end(self) -> None:
        """Writes the seconds of the stage before."""
        if self._name:
            self._say(f"{self._name}: done in {time.perf_counter() - self._begin:.1f} s")
        self._name = ""

    def _say(self, line: str) -> None:
        self._said = time.perf_counter()
        self._console.print(line, soft_wrap=True)


class _Detail(TextColumn):
    """Text that is cut where there is no room. Its column may wrap, so that it alone gives way."""

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text


class LiveProgress:
    """A finished stage leaves a line with its seconds; the current one has a bar and its step."""

    def __init__(self, target: Console) -> None:
        self.display = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]:<8}", style="bold", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]:>9}"),
            _Detail("{task.description}", style="dim", markup=False, table_column=Column()),
            console=target,
            transient=True,
        )
        self._name = ""
        self._detail = ""
        self._begin = 0.0
        self._task: TaskID | None = None

    def stage(self, name: str, detail: str = "") -> None:
        """Closes the stage before and shows the new one."""
        self.end()
        self._name, self._detail, self._begin = name, detail, time.perf_counter()
        self._task = self.display.add_task(detail, total=None, stage=name, count="")

    def step(self, what: str, done: int, total: int) -> None:
        """Moves the bar."""
        if self._task is not None:
            count = f"{done}/{total}"
            self.display.update(
                self._task, description=what, completed=done, total=total, count=count
            )

    def end(self) -> None:
        """Replaces the current stage by its line."""
        if self._task is None:
            return
        self.display.remove_task(self._task)
        self._task = None
        seconds = time.perf_counter() - self._begin
        took = f"{seconds:6.1f} s", "dim"
        line = Text.assemble(("✓", "green"), f" {self._name:<8} ", took, f"  {self._detail}")
        self.display.console.print(line)
