"""Progress for whoever is watching: a live display, plain lines, or nothing.

Progress goes to stderr; stdout is for the result.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

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
    if not target.is_terminal:
        yield PlainProgress(target)
        return
    live = LiveProgress(target)
    try:
        with live.display:
            yield live
            live.end()
    finally:
        live.display.stop()


class PlainProgress:
    """One line when a stage begins. Steps are left out: a log is not a display."""

    def __init__(self, target: Console) -> None:
        self._console = target

    def stage(self, name: str, detail: str = "") -> None:
        """Writes the line."""
        line = f"{name}: {detail}" if detail else name
        self._console.print(line, markup=False, soft_wrap=True)

    def step(self, what: str, done: int, total: int) -> None:
        """Nothing."""


class LiveProgress:
    """A finished stage leaves a line with its seconds; the current one has a bar and its step."""

    def __init__(self, target: Console) -> None:
        self.display = RichProgress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[stage]:<8}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[count]:>9}"),
            TextColumn("[dim]{task.description}"),
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
        self._task = self.display.add_task(escape(detail), total=None, stage=name, count="")

    def step(self, what: str, done: int, total: int) -> None:
        """Moves the bar."""
        if self._task is not None:
            count = f"{done}/{total}"
            self.display.update(
                self._task, description=escape(what), completed=done, total=total, count=count
            )

    def end(self) -> None:
        """Replaces the current stage by its line."""
        if self._task is None:
            return
        self.display.remove_task(self._task)
        self._task = None
        seconds = time.perf_counter() - self._begin
        line = f"[green]✓[/] {self._name:<8} [dim]{seconds:6.1f} s[/]  {escape(self._detail)}"
        self.display.console.print(line)
