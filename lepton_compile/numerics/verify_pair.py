"""An engine that reads or hears something and writes, against the fp32 PyTorch model.

The sample's paragraphs are read, or its sounds heard, and PyTorch answers each, token by token the
likeliest one. What the engine makes of these answers is compared: logits of every position, and how
likely it finds them. Then it answers the first one itself, through its cache, and PyTorch is asked
whether it would have written the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.numerics.compared import Feed, ends
from lepton_compile.numerics.engine import Engine, without_rules
from lepton_compile.numerics.metrics import Agreement, Perplexity
from lepton_compile.numerics.outputs import Output
from lepton_compile.numerics.reference import module_of
from lepton_compile.numerics.sample_sound import sounds
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
    hears = bool(told.get("sound"))
    start = model.begun() if hears else list(told["start"])
    writer = _Writer(reference, told, start)
    room = ends(model, "sequence")[1] - len(start)
    sources: list[Any] = _sounds(model) if hears else feed.enough(_texts(model, feed))
    logits, ours, theirs = Output("logits"), Perplexity(), Perplexity()
    before = len(start) - 1  # positions that score what is given
    tokens = 0
    for number, source in enumerate(sources, 1):
        writer.read(source)
        answer = writer.answer(min(ANSWER, room))
        wanted, got = writer.scores(answer), _scores(model, source, start + answer)
        logits.update(wanted, got)
        ours.update(got[before:-1], np.array(answer))
        theirs.update(wanted[before:-1], np.array(answer))
        tokens += len(answer) + (0 if hears else len(source))
        progress.step("comparing answers", number, len(sources))
    with without_rules(model, "rules"):
        said = _said(model, sources[0], min(ANSWER, room))
    decoded = _confirmed(writer, sources[0], said)
    return {
        "segments": len(sources),
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

    def __init__(self, reference: Any, told: Mapping[str, Any], start: list[int]) -> None:
        self._given, self._told, self._start = reference, told, start
        self._source: dict[str, Any] = {}

    @property
    def _module(self) -> Any:
        return module_of(self._given)

    def read(self, source: Any) -> None:
        """Run the encoder on ids, or on what is heard of a window."""
        import torch

        if isinstance(source, np.ndarray):
            given = {"input_features": torch.from_numpy(source[None])}
        else:
            ids = torch.tensor([[*source]])
            given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.inference_mode():
            outputs = self._module.get_encoder()(**given)
        mask = {name: given[name] for name in given if name == "attention_mask"}
        self._source = {"encoder_outputs": outputs, **mask}

    def answer(self, most: int) -> list[int]:
        """The likeliest tokens, one after the other; at least one, the end included."""
        answer: list[int] = []
        while len(answer) < most and not set(answer) & set(self._told["eos"]):
            answer.append(int(self.choices(self.scores(answer)[-1:], len(answer)).argmax()))
        return answer

    def scores(self, answer: Sequence[int]) -> npt.NDArray[Any]:
        """(tokens, vocabulary) behind the tokens that all answers begin with, and each of this."""
        import torch

        ids = torch.tensor([[*self._start, *answer]])
        with torch.inference_mode():
            found = self._module(**self._source, decoder_input_ids=ids, use_cache=False)
        return np.asarray(found["logits"][0].to(torch.float32).numpy())

    def choices(self, scores: npt.NDArray[Any], written: int) -> npt.NDArray[Any]:
        """``scores`` behind ``written`` tokens and more, without what is not written there."""
        allowed = scores.copy()
        allowed[:, self._told["never"]] = -np.inf
        if not written:
            allowed[0, self._told.get("first") or []] = -np.inf
        return allowed


def _scores(model: Engine, source: Any, written: Sequence[int]) -> npt.NDArray[Any]:
    rows = ends(model, "batch")[0]
    name = "encoder_input_features" if isinstance(source, np.ndarray) else "encoder_input_ids"
    feeds = {name: np.stack([source] * rows), "input_ids": [[*written]] * rows}
    return np.asarray(model.run(feeds, ["logits"])["logits"][0])


def _said(model: Engine, source: Any, most: int) -> list[int]:
    """What the engine writes itself, token by token."""
    rows = [source] * ends(model, "batch")[0]
    if isinstance(source, np.ndarray):
        return list(model.write(rows, max_new_tokens=most)[0].tokens)
    return list(model.generate(rows, max_new_tokens=most)[0].tokens)


def _confirmed(writer: _Writer, source: Any, said: list[int]) -> Agreement:
    """Each token of the engine's own answer checked against the reference after the same prefix."""
    agreement = Agreement()
    if said:
        writer.read(source)
        rows = writer.choices(writer.scores(said[:-1])[-len(said) :], 0)
        agreement.update_choices(rows, np.array(said))
    return agreement


def _sounds(model: Engine) -> list[npt.NDArray[Any]]:
    """What the engine hears of the sample."""
    told = model.manifest["generation"]["sound"]
    made = sounds(told["rate"], told["samples"] / told["rate"])
    return [model.features(each) for each in made]


def _texts(model: Engine, feed: Feed) -> list[list[int]]:
    least, most = ends(model, "source")
    vocabulary = int(model.manifest["generation"]["vocabulary"])
    longest = min(max(SEGMENT, least), most)
    if feed.tokenizer is None:
        return random_segments(vocabulary, [longest, max(least, longest // 2), least])
    texts = whole_texts(feed.tokenizer, paragraphs(feed.text), longest)
    texts = [text for text in texts if len(text) >= least]
    return within(vocabulary, feed.tokenizer, texts)
