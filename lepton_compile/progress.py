"""What a long stage tells whoever is watching.

Stages take a ``Progress`` and never print. The command line shows it as a display, plain lines or
not at all; a library caller who does not care passes nothing and gets ``NullProgress``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["NullProgress", "Progress", "Step"]

Step = Callable[[str, int, int], None]
"""What is being done, how many steps are done, and of how many."""


class Progress(Protocol):
    """Receives the stages of a build in order, and the steps inside each of them."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins, and with it the one before ends."""

    def step(self, what: str, done: int, total: int) -> None:
        """Inside the stage: ``done`` of ``total`` steps, the current one described by ``what``."""


class NullProgress:
    """Nobody is watching."""

    def stage(self, name: str, detail: str = "") -> None:
        """Ignored."""

    def step(self, what: str, done: int, total: int) -> None:
        """Ignored."""
