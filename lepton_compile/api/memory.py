"""A ceiling on the memory of a build."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lepton_compile.errors import EngineError
from lepton_compile.progress import Progress

__all__ = ["MemoryCeiling", "Watched"]

Step = Callable[[str, int, int], None]

FP32 = 4
CHECKED = 4.4
"""Bytes of a parameter in the per-pass check: fp32, mapped from a scratch file, and what lies
between layers; of rounded weights, those that are dequantized at a time are fewer."""


class MemoryCeiling:
    """Watches resident memory at every step of a build.

    Args:
        limit: bytes; None watches nothing.
        holding: options that would spare memory and are not given, such as ``--no-check``.
    """

    def __init__(self, limit: int | None, holding: Sequence[str] = ()) -> None:
        self.limit = limit
        self.holding = tuple(holding)

    def watch(self, step: Step) -> Step:
        """``step``, refusing to go on above the ceiling.

        Raises (from the returned function):
            EngineError: the process holds more than the ceiling allows.
        """
        if self.limit is None:
            return step
        limit = self.limit

        def watched(what: str, done: int, total: int) -> None:
            used = _resident()
            if used > limit:
                raise EngineError(
                    "the build needs more memory than its ceiling",
                    where=what,
                    found=f"{_size(used)} resident",
                    available=[f"{_size(limit)} (--max-memory)"],
                    hint=self._hint(),
                )
            step(what, done, total)

        return watched

    def lacks(self, needed: int, what: str = "the fp32 model") -> str:
        """Why there is no room for ``needed`` bytes more; empty where there is."""
        if self.limit is None or _resident() + needed <= self.limit:
            return ""
        # In words that do not change from run to run: they stand in the manifest.
        more = f"about {_size(needed)} beside what the build holds"
        return f"{what} needs {more}, the ceiling is {_size(self.limit)}"

    def _hint(self) -> str:
        if not self.holding:
            return "raise --max-memory"
        flags = " and ".join(self.holding)
        return f"raise --max-memory, or build with {flags}, where the whole model is held"


class Watched:
    """A progress whose steps keep to a ceiling."""

    def __init__(self, progress: Progress, ceiling: MemoryCeiling) -> None:
        self.stage = progress.stage
        self.step = ceiling.watch(progress.step)


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
