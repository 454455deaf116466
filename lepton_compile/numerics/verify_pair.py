"""An engine that reads one text and writes another, against the fp32 PyTorch model.

The sample's paragraphs are read, and PyTorch answers each, token by token the likeliest one. What
the engine makes of these answers is compared: logits of every position, and how likely it finds
them. Then it answers the first text itself, through its cache, and PyTorch is asked whether it
would have written the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.numerics.compared import Feed, Output, ends
from lepton_compile.numerics.engine import Engine
from lepton_compile.numerics.metrics import Agreement, Perplexity
from lepton_compile.numerics.reference import Later
from lepton_compile.numerics.sample_text import (
    SEGMENT,
    paragraphs,
    random_segments,
    whole_texts,
    within,
)
from lepton_compile.progress import Progress

__all__ = ["ANSWER", "verify_pair"]

ANSWER = 32
"""Tokens of an answer, at most."""


def verify_pair(model: Engine, reference: Any, feed: Feed, progress: Progress) -> dict[str, Any]:
    """The fields of a ``VerifyReport``; args as of ``verify``."""
    told = model.manifest["generation"]
    writer = _Writer(reference, told)
    room = ends(model, "sequence")[1] - len(told["start"])
    texts = feed.enough(_texts(model, feed))
    logits, ours, theirs = Output("logits"), Perplexity(), Perplexity()
    before = len(told["start"]) - 1  # positions that score what is given
    tokens = 0
    for number, text in enumerate(texts, 1):
        writer.read(text)
        answer = writer.answer(min(ANSWER, room))
        wanted, got = writer.scores(answer), _scores(model, text, told["start"] + answer)
        logits.update(wanted, got)
        ours.update(got[before:-1], np.array(answer))
        theirs.update(wanted[before:-1], np.array(answer))
        tokens += len(text) + len(answer)
        progress.step("comparing answers", number, len(texts))
    decoded = _confirmed(model, writer, texts[0], min(ANSWER, room))
    return {
        "segments": len(texts),
        "tokens": tokens,
        "outputs": (logits.report(),),
        "perplexity": ours.value,
        "reference_perplexity": theirs.value,
        "decode_tokens": decoded.total,
        "decode_agreement": decoded.ratio if decoded.total else None,
    }


class _Writer:
    """The fp32 model as what writes answers.

    Args:
        told: ``generation`` of the manifest.
    """

    def __init__(self, reference: Any, told: Mapping[str, Any]) -> None:
        self._given, self._told = reference, told
        self._source: dict[str, Any] = {}

    @property
    def _module(self) -> Any:
        return self._given.module() if isinstance(self._given, Later) else self._given

    def read(self, text: Sequence[int]) -> None:
        """Run the encoder."""
        import torch

        ids = torch.tensor([[*text]])
        mask = torch.ones_like(ids)
        with torch.inference_mode():
            outputs = self._module.get_encoder()(input_ids=ids, attention_mask=mask)
        self._source = {"encoder_outputs": outputs, "attention_mask": mask}

    def answer(self, most: int) -> list[int]:
        """The likeliest tokens, one after the other; at least one, the end included."""
        answer: list[int] = []
        while len(answer) < most and not set(answer) & set(self._told["eos"]):
            answer.append(int(self.choices(self.scores(answer)[-1:]).argmax()))
        return answer

    def scores(self, answer: Sequence[int]) -> npt.NDArray[Any]:
        """(tokens, vocabulary) behind the tokens that all answers begin with, and each of this."""
        import torch

        ids = torch.tensor([[*self._told["start"], *answer]])
        with torch.inference_mode():
            found = self._module(**self._source, decoder_input_ids=ids, use_cache=False)
        return np.asarray(found["logits"][0].to(torch.float32).numpy())

    def choices(self, scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """``scores`` without tokens that are never written."""
        allowed = scores.copy()
        allowed[:, self._told["never"]] = -np.inf
        return allowed


def _scores(model: Engine, text: Sequence[int], written: Sequence[int]) -> npt.NDArray[Any]:
    rows = ends(model, "batch")[0]
    feeds = {"encoder_input_ids": [[*text]] * rows, "input_ids": [[*written]] * rows}
    return np.asarray(model.run(feeds, ["logits"])["logits"][0])


def _confirmed(model: Engine, writer: _Writer, text: Sequence[int], most: int) -> Agreement:
    """Each token of the engine's own answer checked against the reference after the same prefix."""
    said = model.generate([[*text]] * ends(model, "batch")[0], max_new_tokens=most)[0].tokens
    agreement = Agreement()
    if said:
        writer.read(text)
        rows = writer.choices(writer.scores(said[:-1]))[-len(said) :]
        agreement.update_choices(rows, np.array(said))
    return agreement


def _texts(model: Engine, feed: Feed) -> list[list[int]]:
    least, most = ends(model, "source")
    vocabulary = int(model.manifest["generation"]["vocabulary"])
    longest = min(max(SEGMENT, least), most)
    if feed.tokenizer is None:
        return random_segments(vocabulary, [longest, max(least, longest // 2), least])
    texts = whole_texts(feed.tokenizer, paragraphs(feed.text), longest)
    texts = [text for text in texts if len(text) >= least]
    return within(vocabulary, feed.tokenizer, texts)
