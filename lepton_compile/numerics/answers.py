"""What a decoder's engine gives for a text, and how to let it go before the fp32 model is there.

The engine, the fp32 model, and what each says of the same text would be the peak of most builds:
logits over a vocabulary of 262,144 take a megabyte a token. So the engine is asked first, and its
logits wait in a scratch file, to be read a few positions at a time. Of a text that is too long for
that they come as they are needed, and both models are in memory together.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.numerics.engine import Engine
from lepton_compile.progress import Progress
from lepton_compile.scratch import Shelf, Shelved

__all__ = ["KEPT", "Answers"]

KEPT = 2 << 30
"""Bytes of logits that may wait on disk, where twice as many are free."""

PIECE = 64 << 20
"""Bytes of them that are read at a time."""


class Answers:
    """Logits of an engine for several texts.

    Args:
        model: the engine.
        texts: token ids, at least one text.
        rows: how often a text is fed at once; the first row is looked at.

    Attributes:
        kept: all of them are on disk: the engine is not needed any more.
    """

    def __init__(
        self, model: Engine, texts: Sequence[Sequence[int]], rows: int, progress: Progress
    ) -> None:
        self._model, self._texts, self._rows = model, texts, rows
        self._shelved: list[Shelved] = []
        first = self._ask(0)
        needed = first.nbytes // len(texts[0]) * sum(map(len, texts))
        self.kept = needed <= KEPT and 2 * needed <= shutil.disk_usage(tempfile.gettempdir()).free
        if self.kept:
            shelf = Shelf()
            self._shelved = [_on(shelf, first)]
            del first
            for done in range(1, len(texts)):
                progress.step("running the engine", done, len(texts))
                self._shelved.append(_on(shelf, self._ask(done)))

    def pieces(self, index: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Positions of one text in order: the first of a piece, and its logits."""
        if not self.kept:
            yield 0, self._ask(index)
            return
        shelved = self._shelved[index]
        step = max(1, PIECE * len(shelved) // max(1, shelved.nbytes))
        for start in range(0, len(shelved), step):
            yield start, shelved.read(start, start + step)

    def _ask(self, index: int) -> npt.NDArray[Any]:
        ids = np.array([self._texts[index]], np.int64).repeat(self._rows, 0)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return np.asarray(self._model.run(feeds, ["logits"])["logits"][0])


def _on(shelf: Shelf, logits: npt.NDArray[Any]) -> Shelved:
    shelved = shelf.zeros(logits.shape, logits.dtype)
    shelved.write(logits)
    return shelved
