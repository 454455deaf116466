"""What of a model's outputs must not move, as a number to measure and as one to differentiate.

Both describe the same loss. ``distance`` measures it between two runs. ``probe`` is a random scalar
of one run whose squared derivative with respect to a change of the weights is, in expectation,
twice the loss that the change leads to, for small changes: the Fisher information.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Directions", "Likelihood", "Objective"]

_ROWS = 64
"""Of scores that are compared at a time."""


class Objective(Protocol):
    """A loss between outputs of two runs on one text.

    Attributes:
        words: what it is, for people.
    """

    words: str

    def keep(self, outputs: Any) -> Any:
        """What of a run of the reference ``distance`` needs."""

    def rows(self, kept: Any) -> int:
        """How many rows it has, each with a loss."""

    def distance(self, kept: Any, outputs: Any) -> float:
        """Sum of the losses of all rows."""

    def probe(self, outputs: Any, generator: Any) -> Any:
        """The random scalar, summed over the rows."""


class Likelihood:
    """Scores: the Kullback-Leibler divergence of the chances that they stand for.

    For a language model it is the rise of the logarithm of perplexity, on text of its own. The
    probe is the likelihood of an answer drawn from these chances.

    Args:
        names: outputs whose last axis are scores.
    """

    words = "Kullback-Leibler divergence"

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def keep(self, outputs: Any) -> Any:
        import torch

        # Half precision: differences of interest are far above it, and vocabularies are large.
        return [chances.to(torch.float16) for chances in self._chances(outputs)]

    def rows(self, kept: Any) -> int:
        return sum(map(len, kept))

    def distance(self, kept: Any, outputs: Any) -> float:
        total = 0.0
        for before, after in zip(kept, self._chances(outputs), strict=True):
            for start in range(0, len(after), _ROWS):
                part = slice(start, start + _ROWS)
                truth = before[part].float().log_softmax(-1)
                total += float((truth.exp() * (truth - after[part])).sum())
        return total

    def probe(self, outputs: Any, generator: Any) -> Any:
        import torch

        total = 0.0
        for chances in self._chances(outputs):
            with torch.no_grad():
                drawn = torch.multinomial(chances.exp(), 1, generator=generator)
            total = total + chances.gather(1, drawn).sum()
        return total

    def _chances(self, outputs: Any) -> list[Any]:
        found = (outputs[name] for name in self._names)
        return [each.reshape(-1, each.shape[-1]).float().log_softmax(-1) for each in found]


class Directions:
    """Vectors: one minus their cosine. The probe is their product with a random vector.

    Args:
        pooling: how a text becomes one vector; None takes the vector of each token.
    """

    words = "1 - cosine"

    def __init__(self, pooling: str | None = None) -> None:
        self._pooling = pooling

    def keep(self, outputs: Any) -> Any:
        return self._vectors(outputs)

    def rows(self, kept: Any) -> int:
        return len(kept)

    def distance(self, kept: Any, outputs: Any) -> float:
        return float((1 - (kept * self._vectors(outputs)).sum(-1)).sum())

    def probe(self, outputs: Any, generator: Any) -> Any:
        import torch

        vectors = self._vectors(outputs)
        return (vectors * torch.randn(vectors.shape, generator=generator)).sum()

    def _vectors(self, outputs: Any) -> Any:
        """(rows, width) of length 1; the texts come alone, so nothing is padded."""
        import torch

        vectors = _pooled(outputs["last_hidden_state"].float(), self._pooling)
        return torch.nn.functional.normalize(vectors, dim=-1)


def _pooled(hidden: Any, pooling: str | None) -> Any:
    """One vector of a text (1, length, width), or one of each token."""
    if pooling is None:
        return hidden.reshape(-1, hidden.shape[-1])
    if pooling == "mean":
        return hidden.mean(1)
    if pooling == "max":
        return hidden.amax(1)
    return hidden[:, 0 if pooling == "cls" else -1]
