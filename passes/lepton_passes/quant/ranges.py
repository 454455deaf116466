"""How large the inputs of linear layers get, seen on a sample, and the scales that follow."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["FP8_MOST", "INT8_MOST", "InputRange", "readable"]

INT8_MOST = 127.0
FP8_MOST = 448.0
_DIGITS = 3


def readable(scale: float) -> float:
    """``scale`` in three decimal digits, rounded up: nothing that fitted is clipped.

    Machines add up in different orders; a scale that a lock records should not tell them apart.
    """
    exponent = math.floor(math.log10(scale)) - _DIGITS + 1
    # Sums differ from the seventh digit on; what is a hair above a number is meant to be it.
    digits = math.ceil(round(scale / 10.0**exponent, 3))
    return float(f"{digits}e{exponent}")


class InputRange:
    """Magnitudes of one input: the largest, and for each channel the largest and the mean square.

    Attributes:
        channels: fp32 (width,), the largest magnitude of each channel.
        rows: how many rows were seen.
    """

    def __init__(self) -> None:
        self.channels = np.zeros(0, dtype=np.float32)
        self.rows = 0
        self._squares = np.zeros(0)

    def see(self, rows: np.ndarray) -> None:
        """Take note of ``rows`` (..., width), fp32."""
        flat = rows.reshape(-1, rows.shape[-1])
        if not flat.size:
            return
        most = np.abs(flat).max(axis=0).astype(np.float32)
        squares = np.square(flat, dtype=np.float64).sum(axis=0)
        self.channels = np.maximum(self.channels, most) if self.rows else most
        self._squares = self._squares + squares if self.rows else squares
        self.rows += len(flat)

    @property
    def most(self) -> float:
        """The largest magnitude; 0 where nothing was seen."""
        return float(self.channels.max(initial=0.0))

    @property
    def energy(self) -> np.ndarray:
        """Mean square of each channel, fp64 (width,)."""
        return self._squares / max(1, self.rows)

    def int8_scale(self) -> float:
        """The scale that takes the largest magnitude to 127; 1 for zeros.

        Nothing is clipped. A smaller scale may lose less in squared error, but what it clips are
        the few tokens that others attend to: in all-MiniLM-L6-v2 the scale of least squared error
        for what queries and keys read leaves a cosine of 0.989 of the embeddings, this one 0.999.
        """
        return self.most / INT8_MOST if self.most > 0 else 1.0

    def int8_loss(self) -> float:
        """What rounding with ``int8_scale`` loses, expected: root of error over squares."""
        energy = self.energy
        if self.most == 0:
            return 0.0
        # Even rounding to a grid; what is less than half a step becomes zero.
        lost = np.minimum(self.int8_scale() ** 2 / 12, energy)
        return math.sqrt(float(lost.sum() / energy.sum()))

    def fp8_scale(self) -> float:
        """The scale that takes the largest magnitude to the largest number of E4M3; 1 for zeros.

        A floating-point format keeps its relative error over many octaves, so nothing is clipped.
        """
        return self.most / FP8_MOST if self.most > 0 else 1.0
