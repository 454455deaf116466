"""Answers to questions: where in a context they stand."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.runtime.loader_batches import Batches
from lepton_compile.runtime.loader_chances import softmax
from lepton_compile.runtime.loader_guard import failing, refuse

__all__ = ["Answers"]


class Answers(Batches):
    """An encoder that finds the ends of answers."""

    def answer(self, question: str, context: str, longest: int = 30) -> dict[str, Any]:
        """Where in ``context`` the answer stands: answer, score, start and end (characters).

        An answer has at most ``longest`` tokens. A long context is read in parts that overlap;
        ``score`` is the chance of the answer's start times that of its end, within its part.
        """
        needed = {"start_logits", "end_logits"}
        refuse(needed - self.outputs.keys(), f"a model for {self.task} finds no answers")
        bad = [text for text in (question, context) if not isinstance(text, str)]
        refuse(bad, f"answer takes two texts, found {bad!r:.60}")
        with failing("the question and its context cannot be encoded"):
            (question + context).encode()
            windows = [w for w in self._windows(question, context) if 1 in w.sequence_ids]
        wrong = longest is True or not isinstance(longest, int | np.integer) or longest < 1
        refuse(wrong, f"out of its range: {longest=!r:.60}")
        best = (-np.inf, 0.0, (0, 0))
        for window, found in zip(windows, self.run_encoded(windows, [*needed]), strict=True):
            inside = np.flatnonzero([number == 1 for number in window.sequence_ids])
            starts, ends = (found[f"{side}_logits"][inside] for side in ("start", "end"))
            ahead = np.arange(len(inside)) - np.arange(len(inside))[:, None]
            scores = np.where((ahead >= 0) & (ahead < longest), starts[:, None] + ends, -np.inf)
            first, last = np.unravel_index(scores.argmax(), scores.shape)
            chance = softmax(starts)[first] * softmax(ends)[last]
            span = window.offsets[inside[first]][0], window.offsets[inside[last]][1]
            best = max(best, (float(scores[first, last]), float(chance), span))
        _, chance, (start, end) = best
        return {"answer": context[start:end], "score": chance, "start": start, "end": end}

    def _windows(self, question: str, context: str) -> list[Any]:
        """The question with each part of the context that fits; parts overlap by a quarter."""
        copy = type(self.tokenizer).from_str(self.tokenizer.to_str())
        most = self.manifest["ranges"]["sequence"][1]
        copy.no_truncation()
        room = most - len(copy.encode(question, "").ids)
        refuse(room < 1, f"the question leaves no room for a context in {most} tokens")
        copy.enable_truncation(most, stride=room // 4, strategy="only_second")
        whole = copy.encode(question, context)
        return [whole, *whole.overflowing]
