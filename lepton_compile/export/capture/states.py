"""What layers carry from token to token in place of keys and values: windows of convolutions and
the states of linear attention. Our cache keeps none of them: ops own theirs (``scans.py``).
"""

from __future__ import annotations

from torch import Tensor

from lepton_compile.errors import ExportError

__all__ = ["NOT_SUPPORTED", "StateCapture", "active", "under_way"]

NOT_SUPPORTED = (
    "some layers keep a state from token to token that is neither keys and values nor captured as "
    "that of a convolution or of linear attention"
)


class StateCapture:
    """What a cache is given of states, and what the ops made: nothing may be kept elsewhere."""

    def __init__(self) -> None:
        self._entered: list[Tensor] = []
        self._made: list[Tensor] = []

    def enter(self, window: Tensor) -> None:
        """Note what the model caches of a convolution, which the convolution will read next."""
        self.settle()
        self._entered = [window]

    def take(self, x: Tensor) -> bool:
        """Whether ``x`` is what was cached last: then the convolution has a state."""
        taken = any(x is each for each in self._entered)
        if taken:
            self._entered = []
        return taken

    def made(self, state: Tensor) -> Tensor:
        self._made = [state]
        return state

    def keep(self, state: Tensor) -> None:
        """Check that what the model caches is the state of an op.

        Raises:
            ExportError: it is another.
        """
        if not any(state is each for each in self._made):
            raise ExportError(NOT_SUPPORTED)

    def settle(self) -> None:
        """Check that every window that was cached has been read.

        Raises:
            ExportError: one was not, and would be lost.
        """
        if self._entered:
            raise ExportError(NOT_SUPPORTED)


# The captures that are under way; one inside another comes last.
under_way: list[StateCapture] = []


def active() -> StateCapture:
    """The capture that is under way."""
    return under_way[-1]
