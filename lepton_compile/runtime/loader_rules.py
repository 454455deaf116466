"""Which tokens an answer may go on with, by what it has so far.

What transformers applies of a model's generation config: ``no_repeat_ngram_size`` (``apart``) and
``min_length`` (``least``), which counts what an answer begins with, or the prompt of a decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["rule_out"]


def rule_out(told: Mapping[str, Any], scores: np.ndarray, seen: list[int]) -> None:
    """Overwrite the ``scores`` (vocabulary) of tokens that may not follow ``seen``."""
    least, apart = (told["rules"].get(name) or 0 for name in ("least", "apart"))
    if len(seen) < least:
        scores[told["eos"] or []] = -np.inf
    if apart and len(seen) >= apart:
        last = seen[len(seen) - apart + 1 :]
        starts = range(len(seen) - apart + 1)
        scores[[seen[n + apart - 1] for n in starts if seen[n : n + apart - 1] == last]] = -np.inf
