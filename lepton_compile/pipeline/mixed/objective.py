"""What of a model's outputs must not move, as a number to measure and as one to differentiate.

Both describe the same loss. ``distance`` measures it between two runs. ``differentiate`` goes back
from a random scalar of one run whose squared derivative with respect to a change of the weights is,
in expectation, twice the loss that the change leads to, for small changes: the Fisher information.

Scores over a vocabulary are large, 134 MB for 128 tokens of Gemma's: they are worked on a few rows
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from lepton_compile.scratch import Shelf

__all__ = ["Directions", "Likelihood", "Objective", "Own", "Weights"]

_ROWS, _PART = 64, 8
"""Rows of scores that are added up at a time, and rows that are worked on at a time."""


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

    def differentiate(self, outputs: Any, generator: Any) -> None:
        """Derivatives of the random scalar, summed over the rows, to all that asks for them."""


class Likelihood:
    """Scores: the Kullback-Leibler divergence of the chances that they stand for.

    For a language model it is the rise of the logarithm of perplexity, on text of its own. The
    scalar is the logarithm of the chance of an answer, which is drawn by these chances.

    Args:
        names: outputs whose last axis are scores.
    """

    words = "Kullback-Leibler divergence"

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._shelf = Shelf()

    def keep(self, outputs: Any) -> Any:
        # Half precision: differences of interest are far above it, and vocabularies are large.
        kept = []
        for scores in self._scores(outputs):
            kept.append(self._shelf.zeros(scores.shape, np.float16))
            for part in _parts(len(scores)):
                kept[-1].write(_chances(scores[part]).half().numpy(), part.start)
        return kept

    def rows(self, kept: Any) -> int:
        return sum(map(len, kept))

    def distance(self, kept: Any, outputs: Any) -> float:
        import torch

        total = 0.0
        for before, after in zip(kept, self._scores(outputs), strict=True):
            lost = torch.empty((min(_ROWS, len(after)), after.shape[-1]))
            for start in range(0, len(after), _ROWS):
                rows = slice(start, min(start + _ROWS, len(after)))
                for part in _parts(rows.stop - rows.start):
                    kept_rows = before.read(start + part.start, start + part.stop)
                    truth = _chances(torch.from_numpy(kept_rows))
                    lost[part] = truth.exp() * (truth - _chances(after[rows][part]))
                total += float(lost[: rows.stop - rows.start].sum())
        return total

    def differentiate(self, outputs: Any, generator: Any) -> None:
        import torch

        raw = [outputs[name] for name in self._names]
        with torch.no_grad():
            slopes = [
                _slopes(scores, generator).to(each.dtype).view_as(each)
                for each, scores in zip(raw, self._scores(outputs), strict=True)
            ]
        torch.autograd.backward(raw, slopes)

    def _scores(self, outputs: Any) -> list[Any]:
        return [each.reshape(-1, each.shape[-1]) for each in (outputs[n] for n in self._names)]


def _parts(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + _PART, rows)) for start in range(0, rows, _PART))


def _chances(scores: Any) -> Any:
    """Logarithms of the chances that scores stand for, fp32."""
    return scores.float().log_softmax(-1)


def _slopes(scores: Any, generator: Any) -> Any:
    """Derivatives, with respect to ``scores``, of the log chance of an answer drawn by them."""
    import torch

    # Chances over draws of an exponential distribution: each is the largest as often as its chance.
    slopes = torch.empty(scores.shape).exponential_(1, generator=generator)
    for part in _parts(len(scores)):
        own = scores[part].detach().requires_grad_()
        with torch.enable_grad():
            chances = _chances(own)
            drawn = chances.detach().exp().div_(slopes[part]).argmax(-1, keepdim=True)
            (slopes[part],) = torch.autograd.grad(chances.gather(1, drawn).sum(), own)
    return slopes


class Directions:
    """Vectors: one minus their cosine. The scalar is their product with a random vector.

    Args:
        pooling: how a text becomes one vector; None takes the vector of each token.
        dense: the torch module behind the pooling, if there is one: its weights are rounded, too.
    """

    words = "1 - cosine"

    def __init__(self, pooling: str | None = None, dense: Any | None = None) -> None:
        self._pooling, self._dense = pooling, dense

    def keep(self, outputs: Any) -> Any:
        return self._vectors(outputs)

    def rows(self, kept: Any) -> int:
        return len(kept)

    def distance(self, kept: Any, outputs: Any) -> float:
        return float((1 - (kept * self._vectors(outputs)).sum(-1)).sum())

    def differentiate(self, outputs: Any, generator: Any) -> None:
        import torch

        vectors = self._vectors(outputs)
        (vectors * torch.randn(vectors.shape, generator=generator)).sum().backward()

    def _vectors(self, outputs: Any) -> Any:
        """(rows, width) of length 1; the texts come alone, so nothing is padded."""
        import torch

        vectors = _pooled(outputs["last_hidden_state"].float(), self._pooling)
        vectors = vectors if self._dense is None else self._dense(vectors)
        return torch.nn.functional.normalize(vectors, dim=-1)


class Own(Directions):
    """Directions of the vectors that a model makes of pictures or texts itself, else of its
    features."""

    _NAMES = ("image_embeds", "text_embeds", "pooler_output", "last_hidden_state")

    def _vectors(self, outputs: Any) -> Any:
        import torch

        vectors = next(outputs[name] for name in self._NAMES if outputs.get(name) is not None)
        return torch.nn.functional.normalize(vectors.float().flatten(1), dim=-1)


class Weights(Directions):
    """Directions of sparse embeddings, whose numbers are weights of words.

    Args:
        pooling: max or sum, over the tokens of a text.
        logarithms: how often log(1 + x) is taken of a score.
    """

    def __init__(self, pooling: str, logarithms: int) -> None:
        super().__init__(pooling)
        self._logarithms = logarithms

    def _vectors(self, outputs: Any) -> Any:
        import torch

        weights = outputs["logits"].float().relu()
        for _ in range(self._logarithms):
            weights = weights.log1p()
        pooled = weights.amax(1) if self._pooling == "max" else weights.sum(1)
        return torch.nn.functional.normalize(pooled, dim=-1)


def _pooled(hidden: Any, pooling: str | None) -> Any:
    """One vector of a text (1, length, width), or one of each token."""
    if pooling is None:
        return hidden.reshape(-1, hidden.shape[-1])
    if pooling == "mean":
        return hidden.mean(1)
    if pooling == "max":
        return hidden.amax(1)
    return hidden[:, 0 if pooling == "cls" else -1]
