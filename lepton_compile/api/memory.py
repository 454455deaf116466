"""A ceiling on the memory of a build."""

from __future__ import annotations

from collections.abc import Callable

from lepton_compile.errors import EngineError

__all__ = ["MemoryCeiling"]

Step = Callable[[str, int, int], None]


class MemoryCeiling:
    """Watches resident memory at every step of a build.

    Args:
        limit: bytes; None watches nothing.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit

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
                    found=f"{used / 1e9:.2f} GB resident",
                    available=[f"{limit / 1e9:.2f} GB (--max-memory)"],
                    hint="raise --max-memory, or build with --no-check and --no-verify, which "
                    "hold the whole model",
                )
            step(what, done, total)

        return watched


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
