"""A vision-language engine, against the fp32 PyTorch model.

In front of each segment of the sample text stands a picture that is made up. What both make of the
text is compared: logits of every position behind the picture, and how likely they find it. Then
the engine goes on from a picture and a few words itself, through its cache, and PyTorch is asked
whether it would have written the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.errors import ExportError, UsageError
from lepton_compile.numerics.compared import Feed, decoder_parts, ends
from lepton_compile.numerics.engine import Engine, generates
from lepton_compile.numerics.metrics import Agreement, Perplexity
from lepton_compile.numerics.outputs import Output
from lepton_compile.numerics.pictured_reference import with_pictures
from lepton_compile.numerics.pictured_sample import made_up, seen_feed, shown, tokens_of
from lepton_compile.numerics.reference import module_of
from lepton_compile.numerics.sample_text import SEGMENT
from lepton_compile.progress import Progress
from lepton_compile.runtime.loader_pictured import Pictured

__all__ = ["verify_pictured"]

DIFFERENT = 8
"""Pictures, which come round again."""
PROMPT, CONTINUATION = 16, 24
Array = npt.NDArray[Any]


class _Reference:
    """The fp32 model, which is loaded when it is first asked."""

    def __init__(self, given: Any) -> None:
        self._given = given

    def scores(self, ids: Sequence[int], pixels: Array) -> Array:
        """(tokens, vocabulary) of ids among which pictures (pictures, channels, rows, columns)
        stand."""
        import torch

        module = module_of(self._given)
        row = torch.tensor([[*ids]])
        given = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        given |= with_pictures(module, row, pixels[None])
        try:
            with torch.inference_mode():
                found = module(**given, use_cache=False)
        except Exception as error:  # whatever the model's own code raises
            raise ExportError(
                "transformers' own model fails on what the engine is compared on",
                where=f"{type(module).__name__}, in transformers' own code",
                found=f"{type(error).__name__}: {error!s:.200}",
                hint="compare the configuration with the one that the model was released with",
            ) from error
        return np.asarray(found["logits"][0].to(torch.float32).numpy())


def verify_pictured(
    model: Engine, reference: Any, feed: Feed, progress: Progress
) -> dict[str, Any]:
    """The fields of a ``VerifyReport``; args as of ``verify``."""
    truth, told = _Reference(reference), model.manifest["generation"]["pictures"]
    pixels = made_up(model, DIFFERENT)
    before = [told["placeholder"]] * tokens_of(model, pixels[0])
    longest = min(SEGMENT, ends(model, "sequence")[1] - len(before))
    parts = _words(feed.enough(decoder_parts(model, feed, longest)), told["placeholder"])
    logits, ours, theirs = Output("logits"), Perplexity(), Perplexity()
    for number, part in enumerate(parts):
        ids, one = before + part, pixels[number % len(pixels)][None]
        wanted, got = truth.scores(ids, one), _scores(model, ids, one)
        rows = slice(len(before) - 1, None)
        logits.update(wanted[rows], got[rows])
        ours.update(got[rows][:-1], np.array(part))
        theirs.update(wanted[rows][:-1], np.array(part))
        progress.step("comparing segments", number + 1, len(parts))
    decoded = _confirmed(model, truth, pixels[:1], before + parts[0][:PROMPT])
    return {
        "segments": len(parts),
        "tokens": sum(map(len, parts)),
        "outputs": (logits.report(),),
        "perplexity": ours.value,
        "reference_perplexity": theirs.value,
        "decode_tokens": decoded.total,
        "decode_agreement": decoded.ratio if decoded.total else None,
    }


def _scores(model: Engine, ids: Sequence[int], pixels: Array) -> Array:
    """What the engine makes of them, ``(tokens, vocabulary)``; fed in as many rows as it takes."""
    return np.asarray(model.run(seen_feed(model, ids, pixels), ["logits"])["logits"][0])


def _words(parts: list[list[int]], token: int) -> list[list[int]]:
    """What is text of the parts of a sample. Raises UsageError where nothing is."""
    found = [[one for one in part if one != token] for part in parts]
    if not any(found):
        raise UsageError(
            "there is nothing in this text to compare on",
            found="what stands for images alone, or nothing",
            hint="name another text: pictures stand in front of each of its segments",
        )
    return [*filter(None, found)]


def _confirmed(model: Engine, truth: _Reference, pixels: Array, ids: list[int]) -> Agreement:
    """Each token of the engine's own continuation of ``ids``, checked against the reference after
    the same ones. Nothing where it does not generate, or has no room."""
    agreement, least = Agreement(), ends(model, "batch")[0]
    room = min(CONTINUATION, ends(model, "sequence")[1] - len(ids))
    if room < 1 or not generates(model.manifest):
        return agreement
    said, token = _said(model, [shown(ids, pixels)] * least, room), ids[0]
    if token in said:  # as if a picture stood there, of which the reference knows nothing
        said = said[: said.index(token) + 1]
    wanted = truth.scores(ids + said[:-1], pixels)
    agreement.update_choices(wanted[len(ids) - 1 :], np.array(said))
    return agreement


def _said(model: Engine, prompts: list[Pictured], count: int) -> list[int]:
    """The likeliest token of the first, one after the other."""
    cache = model.new_cache(len(prompts), len(prompts[0]) + count)
    try:
        tokens = [cache.start(prompts).argmax(-1).tolist()]
        while len(tokens) < count:
            tokens.append(cache.step(tokens[-1], [True] * len(prompts)).argmax(-1).tolist())
    finally:
        cache.close()
    return [each[0] for each in tokens]
