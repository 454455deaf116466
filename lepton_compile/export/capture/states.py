"""What layers carry from token to token in place of keys and values: windows of convolutions and
the states of linear attention. Our cache keeps none of them: ops own theirs (``scans.py``).
"""

from __future__ import annotations

from torch import Tensor

from lepton_compile.errors import ExportError

__all__ = ["NOT_SUPPORTED", "StateCapture", "active", "under_way"]

NOT_SUPPORTED = (
    "some layers keep a recurrent state that is neither a KV cache nor captured as that of a "
    "convolution or of linear attention"
)


class StateCapture:
    """What a cache is given of states, and what the ops made: nothing may be kept elsewhere."""

    def __init__(self) -> None:
        self._window: Tensor | None = None
        self._state: Tensor | None = None

    def enter(self, window: Tensor) -> None:
        """Note what the model caches of a convolution, which the convolution will read next."""
        self.settle()
        self._window = window

    def take(self, x: Tensor) -> bool:
        """Whether ``x`` is what was cached last: then the convolution has a state."""
        if x is not self._window:
            return False
        self._window = None
        return True

    def made(self, state: Tensor) -> Tensor:
        """Note the state of an op."""
        self._state = state
        return state

    def keep(self, state: Tensor) -> None:
        """Check that what the model caches is the state of an op.

        Raises:
            ExportError: it is another.
        """
        if state is not self._state:
            raise ExportError(NOT_SUPPORTED)

    def settle(self) -> None:
        """Check that every window that was cached has been read.

        Raises:
            ExportError: one was not, and would be lost.
        """
        if self._window is not None:
            raise ExportError(NOT_SUPPORTED)


# The captures that are under way; one inside another comes last.
under_way: list[StateCapture] = []


def active() -> StateCapture:
    """The capture that is under way."""
    return under_way[-1]
