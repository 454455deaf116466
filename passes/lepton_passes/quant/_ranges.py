"""How large the inputs of linear layers get, seen on a sample, and the scales that follow.

The magnitudes of an input are counted in a histogram whose reach doubles when a value lies outside,
so one reading of the sample is enough and the order of its rows changes nothing but the reach.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["FP8_MOST", "INT8_MOST", "InputRange", "readable"]

INT8_MOST = 127.0
FP8_MOST = 448.0
BINS = 2048
_CANDIDATES = 128
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
    """Magnitudes of one input: their largest, their histogram, the largest of each channel.

    Attributes:
        most: largest magnitude.
        channels: fp32 (width,), the largest magnitude of each channel.
    """

    def __init__(self) -> None:
        self.most = 0.0
        self.channels = np.zeros(0, dtype=np.float32)
        self._top = 0.0
        self._counts = np.zeros(BINS, dtype=np.int64)

    def see(self, rows: np.ndarray) -> None:
        """Count the values of ``rows`` (..., width), fp32."""
        magnitudes = np.abs(rows.reshape(-1, rows.shape[-1]), dtype=np.float32)
        if not magnitudes.size:
            return
        channels = magnitudes.max(axis=0)
        known = self.channels if self.channels.size else np.zeros_like(channels)
        self.channels = np.maximum(known, channels)
        most = float(channels.max())
        self.most = max(self.most, most)
        self._reach(most)
        if self._top > 0:
            self._counts += np.histogram(magnitudes, bins=BINS, range=(0, self._top))[0]

    def int8_scale(self) -> float:
        """The scale whose rounding and clipping lose least, in squared error; 1 for zeros."""
        return self._best_reach() / INT8_MOST if self.most > 0 else 1.0

    def fp8_scale(self) -> float:
        """The scale that takes the largest magnitude to the largest number of E4M3.

        A floating-point format keeps its relative error over many octaves, so nothing is clipped.
        """
        return self.most / FP8_MOST if self.most > 0 else 1.0

    def _reach(self, most: float) -> None:
        """Let the histogram reach ``most``: bins are joined in pairs."""
        if self._top == 0 and most > 0:
            self._top = float(2.0 ** np.ceil(np.log2(most)))
        while most > self._top > 0:
            self._counts = np.concatenate(
                [self._counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, dtype=np.int64)]
            )
            self._top *= 2

    def _best_reach(self) -> float:
        """The magnitude that 127 should stand for."""
        width = self._top / BINS
        middle = (np.arange(BINS) + 0.5) * width
        best, least = self.most, np.inf
        for reach in np.linspace(self.most / _CANDIDATES, self.most, _CANDIDATES):
            step = reach / INT8_MOST
            # Even rounding to a grid; what is less than half a step becomes zero.
            rounding = np.where(middle < step / 2, middle**2, step**2 / 12)
            lost = np.where(middle > reach, (middle - reach) ** 2, rounding)
            error = float((self._counts * lost).sum())
            if error < least:
                best, least = float(reach), error
        return best
