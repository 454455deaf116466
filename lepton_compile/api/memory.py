"""A ceiling on the memory of a build: the recipe's, or what there is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lepton_compile.errors import EngineError
from lepton_compile.progress import Progress, Step

__all__ = ["MemoryCeiling", "Watched"]


GROUP = Path("/sys/fs/cgroup")
"""Of a container: its control group."""

LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Its files, of version 2 and 1, that say what it may hold: it is killed at the next page."""

FP32 = 4
SMALL = 10_000_000
"""Below it a size in GB would be nothing: that of a ceiling without its unit."""
CHECKED = 4.4
"""Bytes of a parameter in the per-pass check: fp32, mapped from a scratch file, and what lies
between layers. Rounded weights take fewer: only some are dequantized at a time."""


class MemoryCeiling:
    """Watches resident memory at every step of a build.

    Args:
        limit: bytes; with None nothing is watched, and what is left is that of the machine.
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

    def lacks(self, needed: int, what: str = "the fp32 model", mapped: int = 0) -> str:
        """Why there is no room for ``needed`` bytes more; empty where there is.

        Args:
            mapped: bytes of files beside them. They are resident while there is room, and so they
                count below a ceiling; a machine lets them go before it lacks memory.
        """
        # In words that do not change from run to run: they stand in the manifest.
        more = f"{what} needs about {_size(needed + mapped)} beside what is held"
        if self.limit is not None:
            fits = _resident() + needed + mapped <= self.limit
            return "" if fits else f"{more}, the ceiling is {_size(self.limit)}"
        if needed <= _free():
            return ""
        return f"{more}, this machine or its container has {_size(_machine())}"

    def below(self, peak: int) -> str:
        """What to say where the ceiling is below the ``peak`` that a plan estimates, rather high
        than low; empty where it is not."""
        if self.limit is None or peak <= self.limit:
            return ""
        more = f"more than the ceiling of {_size(self.limit)}"
        return f"a build needs about {_size(peak)}, {more}, and may fail: raise --max-memory"

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


def _machine() -> int:
    """Bytes of memory that there are for this process, in use or not: its container's."""
    import psutil

    found = [psutil.virtual_memory().total]
    for name in LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int((GROUP / name).read_text()))
    return int(min(found))


def _free() -> int:
    """Bytes that this process may take without being killed for them."""
    import psutil

    unused = psutil.virtual_memory().available + psutil.swap_memory().free
    return int(min(unused, _machine() - _resident()))


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= SMALL else f"{size:,} bytes"


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
