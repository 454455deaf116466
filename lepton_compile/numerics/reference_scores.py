"""What the fp32 model says of several texts, when its layers have made way for an engine.

The model, an engine, and what each says of a text would be the peak of most builds: scores of a
vocabulary of 262,144 take a megabyte a token. The states that the model makes them of take a few
kilobytes. So its layers read all texts first and are let go; its head is asked for the scores of
one text after the other, beside the engine that they are compared with. A model that cannot be
taken apart like this stays whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lepton_compile.numerics.reference import Later, module_of
from lepton_compile.progress import Progress
from lepton_compile.scratch import give_back_freed

if TYPE_CHECKING:
    import torch

    from lepton_compile.numerics.reference_head import Head

__all__ = ["ReferenceScores"]

AT_ONCE = 4
"""Texts of one length that the layers read together: larger products are faster."""

TOKENS = 512
"""That layers read together which come from a checkpoint each time: reading them takes longer than
what they compute, and a token takes hundreds of kilobytes inside a layer."""


class ReferenceScores:
    """Scores that a decoder of transformers gives for texts. Making one runs the layers.

    Args:
        reference: the model in evaluation mode; or ``Later``, what loads it: the layers are
            freed then, and the model is loaded anew for whoever asks next.
        texts: token ids, at least one text, and one id a text.
        progress: told as the layers go through the texts.
    """

    def __init__(self, reference: Any, texts: Sequence[Sequence[int]], progress: Progress) -> None:
        from lepton_compile.numerics.reference_head import take_apart

        self._module, self._texts = module_of(reference), texts
        self._head = take_apart(self._module, texts[0])
        if self._head is None:
            return
        later = reference if isinstance(reference, Later) else None
        in_one = later is not None and later.streamed
        groups = _in_few(texts) if in_one else _of_one_length(texts)
        self._states = _states(self._head, texts, groups, progress)
        if later is not None:
            self._head.let_go()
            later.forget()
            give_back_freed()

    def of(self, index: int) -> npt.NDArray[np.float32]:
        """Of each position of a text, ``(tokens, vocabulary)``."""
        from lepton_compile.numerics.reference_head import scores_of

        if self._head is not None:
            found = self._head.scores(self._states[index][None])
        else:
            found = scores_of(self._module, [self._texts[index]])
        return np.asarray(found[0].numpy())


def _states(
    head: Head,
    texts: Sequence[Sequence[int]],
    groups: Iterable[Sequence[int]],
    progress: Progress,
) -> dict[int, torch.Tensor]:
    """Index of a text -> what the layers make of it, ``(tokens, width)``.

    Shorter texts of a group are filled up behind: no token of a decoder sees what comes after it.
    """
    found: dict[int, torch.Tensor] = {}
    for together in groups:
        longest = max(len(texts[index]) for index in together)
        made = head.states([[*texts[i], *[0] * (longest - len(texts[i]))] for i in together])
        for index, states in zip(together, made, strict=True):
            found[index] = states[: len(texts[index])]
        progress.step("running PyTorch's layers", len(found), len(texts))
    return found


def _in_few(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of texts, as many together as keep to ``TOKENS``, the longest first."""
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    while order:
        count = max(1, TOKENS // len(texts[order[0]]))
        yield order[:count]
        del order[:count]


def _of_one_length(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of texts that need no padding beside each other, a few at a time."""
    lengths: dict[int, list[int]] = {}
    for index, text in enumerate(texts):
        lengths.setdefault(len(text), []).append(index)
    for same in lengths.values():
        yield from (same[at : at + AT_ONCE] for at in range(0, len(same), AT_ONCE))
