"""How tokens are drawn from logits."""

from __future__ import annotations

from operator import index
from typing import Any, NamedTuple

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse

__all__ = ["Sampling", "largest"]


class Sampling(NamedTuple):
    """How tokens are drawn from logits, and how many; with the defaults, the likeliest."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_new_tokens: int | None = None

    def checked(self) -> Sampling:
        """The same in Python's own numbers; what is out of its range, or none, is refused."""
        most, least, made = 3.4e38, 1e-38, dict[str, Any]()  # of float32
        ranges = {
            "top_p": (least, 1, "above 0, up to 1"),
            "min_p": (0, 1, "from 0 to 1"),
            "repetition_penalty": (least, most, "above 0"),
            "max_new_tokens": (1, most, "from 1 on"),
        }
        for name, value in self._asdict().items():
            if value is (usual := self._field_defaults[name]):
                continue
            low, high, said = ranges.get(name, (0, most, "from 0 on"))
            kind = "finite" if isinstance(usual, float) else "whole"
            wrong = f"out of its range: {name}={value!r:.60}, not a {kind} number {said}"
            with failing(wrong):  # by text, an array, a part of a token
                made[name] = float(value + 0) if isinstance(usual, float) else index(value)
            refuse(isinstance(value, bool | np.bool_) or not low <= made[name] <= high, wrong)
        return self._replace(**made)

    def pick(self, scores: np.ndarray, row: Any, draw: np.random.Generator) -> int:
        """One token id for ``row`` from its (vocabulary,) logits, which may be overwritten."""
        if (penalty := self.repetition_penalty) != 1:
            old = scores[seen := row.ids + row.tokens]
            scores[seen] = np.where(old > 0, old / penalty, old * penalty)
        if self.temperature == 0:
            return int(scores.argmax())
        ids, weights = self.candidates(scores)
        at = _draw(weights, draw.random())
        return at if ids is None else int(ids[at])

    def candidates(self, scores: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Ids that may be drawn, or None for all, and their weights: 1 for the likeliest."""
        ids = largest(scores, self.top_k) if self.top_k else None
        weights = scores if ids is None else scores[ids]
        weights -= weights.max()  # in ``scores``: new memory takes longer to get than to fill
        weights /= np.float32(max(self.temperature, 1e-30))
        np.exp(weights, out=weights)
        if self.top_p < 1:
            keep = _nucleus(weights, self.top_p)
            ids, weights = keep if ids is None else ids[keep], weights[keep]
        if self.min_p > 0:
            keep = np.flatnonzero(weights >= self.min_p)
            ids, weights = keep if ids is None else ids[keep], weights[keep]
        return ids, weights


def _draw(weights: np.ndarray, at: float) -> int:
    """The position where the running sum of ``weights`` passes ``at`` (0 to 1) of the whole."""
    starts = np.arange(0, len(weights), 512)
    sums = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
    block = int(np.searchsorted(sums[:-1], at * sums[-1], "right"))
    rest = at * sums[-1] - (sums[block - 1] if block else 0.0)
    inside = weights[starts[block] : starts[block] + 512].cumsum(dtype=np.float64)
    return int(starts[block] + np.searchsorted(inside[:-1], rest, "right"))


def _nucleus(weights: np.ndarray, top_p: float) -> np.ndarray:
    """Positions of the fewest largest weights that hold ``top_p`` of the whole, largest first."""
    enough, count = top_p * weights.sum(dtype=np.float64), 128
    while True:
        order = largest(weights, count)
        size = 1 + int(np.searchsorted(weights[order].cumsum(dtype=np.float64), enough))
        if size <= len(order) or len(order) == len(weights):
            return order[:size]
        count *= 8


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` largest values, largest first; the whole is never sorted."""
    ids, tops = None, np.maximum.reduceat(values, np.arange(0, len(values), 256))
    if count < len(tops):  # So many are as large as the least of the largest of blocks, or NaN.
        ids = np.flatnonzero(~(values < np.partition(tops, -count)[-count]))
        values = values[ids]
    whole = count >= len(values)
    best = np.arange(len(values)) if whole else np.argpartition(values, -count)[-count:]
    best = best[np.argsort(-values[best], kind="stable")]
    return best if ids is None else ids[best]
