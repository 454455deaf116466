"""An engine against the fp32 PyTorch model, on the sample text, one segment after the other.

Decoders: logits of every position of every segment, perplexity of both, and a greedy continuation
through the cache that the reference is asked to confirm; the engine may be closed while the layers
of the reference are in memory (``verify_pair`` has what reads one text and writes another).
Encoders: paragraphs in padded batches; padding is left out of every number. Where a text has one
score, agreement is of pairs of texts.
An engine that takes a least number of rows or tokens is fed copies of a row, and padding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton_compile.errors import UsageError
from lepton_compile.numerics.compared import Feed, decoder_parts, ends
from lepton_compile.numerics.engine import Engine, generates, without_rules
from lepton_compile.numerics.metrics import Agreement, Perplexity
from lepton_compile.numerics.outputs import Output
from lepton_compile.numerics.reference import Reference
from lepton_compile.numerics.reference_scores import ReferenceScores
from lepton_compile.numerics.sample_text import (
    BATCH,
    SEGMENT,
    comparable,
    paragraphs,
    random_segments,
    whole_texts,
    within,
)
from lepton_compile.numerics.tolerance import GENERATING
from lepton_compile.numerics.verify_images import verify_images
from lepton_compile.numerics.verify_pair import verify_pair
from lepton_compile.numerics.verify_pictured import verify_pictured
from lepton_compile.numerics.verify_report import VerifyReport
from lepton_compile.progress import NullProgress, Progress

__all__ = ["verify"]

PAIRS, IMAGE_TEXT = GENERATING[1:3], GENERATING[3]

Ids = npt.NDArray[np.int64]

PROMPT = 16
CONTINUATION = 24


def verify(
    model: Engine,
    reference: Any,
    tokenizer: Any,
    task: str,
    *,
    precision: str = "fp32",
    text: str | None = None,
    tokens: int | None = None,
    progress: Progress | None = None,
    release: Callable[[], None] = lambda: None,
    reopened: Callable[[], AbstractContextManager[Engine]] | None = None,
) -> VerifyReport:
    """Compares an engine with its reference on the sample text, one that sees on pictures.

    Args:
        model: the opened artifact.
        reference: the fp32 torch module in evaluation mode, taking and giving what transformers'
            models do; or ``Later``, what loads it.
        tokenizer: a transformers tokenizer or one of `tokenizers`; None feeds random ids instead.
        task: the task, in optimum's words.
        precision: precision of the engine, for the report and the default demands.
        text: another text in place of the sample.
        tokens: stop after the segment or batch that reaches so many tokens; None takes all.
        progress: told after each segment.
        release: called before the layers of a decoder's reference are in memory: closes the engine.
        reopened: the engine once more, for when they are gone; left out, it stayed open.

    Raises:
        UsageError: there is nothing to compare on in the text.
    """
    begin = time.perf_counter()
    watcher = progress or NullProgress()
    if task.startswith("image-") and task != IMAGE_TEXT:
        return verify_images(model, reference, task, precision, watcher)
    decoder = task in ("text-generation", IMAGE_TEXT)
    _check_text(tokenizer, text, decoder=decoder)
    feed = Feed(tokenizer, text, tokens)
    if task in PAIRS:
        found = verify_pair(model, reference, feed, watcher)
    elif task == IMAGE_TEXT:
        found = verify_pictured(model, reference, feed, watcher)
    elif decoder:
        again = reopened or (lambda: nullcontext(model))
        found = _verify_decoder(model, reference, feed, watcher, release, again)
    else:
        truth = Reference(reference, model.manifest.get("embedding"))
        found = _verify_encoder(model, truth, feed, watcher)
    return VerifyReport(
        task=task,
        precision=precision,
        sample=_sample(task, tokenizer, text),
        seconds=time.perf_counter() - begin,
        **found,
    )


def _check_text(tokenizer: Any, text: str | None, *, decoder: bool) -> None:
    """Refuse a text in which there is nothing to compare on."""
    if tokenizer is not None and not comparable(tokenizer, text, decoder=decoder):
        raise UsageError(
            "there is nothing in this text to compare on",
            found="the sample text" if text is None else repr(text),
            hint="see that the tokenizer has a vocabulary, or name another text",
        )


def _sample(task: str, tokenizer: Any, text: str | None) -> str:
    """What the engine was fed, in words."""
    if task == PAIRS[1]:
        return "what PyTorch transcribes of synthetic audio"
    if tokenizer is None:
        return "random ids, as there is no tokenizer"
    words = "the sample text" if text is None else "the text that was given"
    return f"{words}, behind synthetic images" if task == IMAGE_TEXT else words


def _verify_decoder(
    model: Engine,
    reference: Any,
    feed: Feed,
    progress: Progress,
    release: Callable[[], None],
    reopened: Callable[[], AbstractContextManager[Engine]],
) -> dict[str, Any]:
    rows, _ = ends(model, "batch")
    length = max(SEGMENT // rows, PROMPT + CONTINUATION)  # each row has its own, large logits
    longest = min(length, ends(model, "sequence")[1])
    parts = feed.enough(decoder_parts(model, feed, longest))
    prompt, said = _continuation(model, parts[0], longest)
    release()
    texts = [*parts, prompt + said[:-1]] if said else parts
    truth = ReferenceScores(reference, texts, progress)
    logits, ours, theirs = Output("logits"), Perplexity(), Perplexity()

    # A function, so that the logits of one segment are gone when the next one is run.
    def compare(engine: Engine, index: int, part: list[int]) -> None:
        wanted, got = truth.of(index), _logits(engine, part, rows)
        follows = np.array(part[1:], np.int64)
        logits.update(wanted, got)
        ours.update(got[:-1], follows)
        theirs.update(wanted[:-1], follows)

    with reopened() as engine:
        for index, part in enumerate(parts):
            compare(engine, index, part)
            progress.step("comparing segments", index + 1, len(parts))
    decoded = Agreement()
    if said:  # each token, after the same ones before it
        decoded.update_choices(truth.of(len(parts))[len(prompt) - 1 :], np.array(said))
    return {
        "segments": len(parts),
        "tokens": sum(map(len, parts)),
        "outputs": (logits.report(),),
        "perplexity": ours.value if ours.tokens else None,
        "reference_perplexity": theirs.value if theirs.tokens else None,
        "decode_tokens": decoded.total,
        "decode_agreement": decoded.ratio if decoded.total else None,
    }


def _logits(model: Engine, part: Sequence[int], rows: int) -> npt.NDArray[Any]:
    """Of each position, ``(tokens, vocabulary)``; the text is fed in ``rows`` copies."""
    ids = np.array([part], np.int64).repeat(rows, 0)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return np.asarray(model.run(feeds, ["logits"])["logits"][0])


def _continuation(model: Engine, segment: list[int], longest: int) -> tuple[list[int], list[int]]:
    """A prompt and the greedy tokens of the engine; none where it does not generate."""
    prompt = segment[: min(PROMPT, longest // 2)]
    room = min(CONTINUATION, longest - len(prompt))
    if not generates(model.manifest) or not prompt or room < 1:
        return prompt, []
    least, _ = ends(model, "batch")
    with without_rules(model, "never", "first", "rules"):
        return prompt, list(model.generate([prompt] * least, max_new_tokens=room)[0].tokens)


def _verify_encoder(
    model: Engine, truth: Reference, feed: Feed, progress: Progress
) -> dict[str, Any]:
    names = [output["name"] for output in model.manifest["outputs"]]
    outputs = {name: Output(name) for name in names}
    texts = feed.enough(_encoder_texts(model, feed, truth))
    least, most = ends(model, "batch")
    size = min(max(BATCH, least), most)
    batches = [texts[at : at + size] for at in range(0, len(texts), size)]
    for number, batch in enumerate(batches, 1):
        feeds = _padded(batch, truth.pad, ends(model, "sequence")[0])
        if "token_type_ids" in model.inputs:
            feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
        real = feeds["attention_mask"].astype(bool)
        if "attention_mask" not in model.inputs:
            del feeds["attention_mask"]
        wanted, found = truth.run(feeds, names), model.run(_filled(feeds, least), names)
        got = {name: array[: len(batch)] for name, array in found.items()}
        for name in names:
            for pair in _real_rows(name, wanted[name], got[name], real):
                outputs[name].update(*pair)
        progress.step("comparing batches", number, len(batches))
    embedding = model.manifest.get("embedding")
    return {
        "segments": sum(map(len, batches)),
        "tokens": sum(len(text) for batch in batches for text in batch),
        "outputs": tuple(output.report() for output in outputs.values()),
        "embedding": embedding["output"] if embedding else None,
    }


def _encoder_texts(model: Engine, feed: Feed, truth: Reference) -> list[list[int]]:
    least, most = ends(model, "sequence")
    longest = min(max(SEGMENT, least), most)
    if feed.tokenizer is None:
        lengths = [max(1, longest * part // 8) for part in range(1, 9)]
        return random_segments(truth.vocabulary, lengths)
    texts = whole_texts(feed.tokenizer, paragraphs(feed.text), longest)
    return within(truth.vocabulary, feed.tokenizer, texts)


def _filled(feeds: dict[str, Ids], rows: int) -> dict[str, Ids]:
    """At least so many rows, the last of them over again: one of padding alone would give NaN."""
    return {
        name: np.concatenate([array, array[-1:].repeat(max(0, rows - len(array)), 0)])
        for name, array in feeds.items()
    }


def _padded(batch: Sequence[Sequence[int]], pad: int, least: int) -> dict[str, Ids]:
    width = max(least, *map(len, batch))
    ids = np.full((len(batch), width), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _real_rows(
    name: str, wanted: npt.NDArray[Any], got: npt.NDArray[Any], real: npt.NDArray[np.bool_]
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """The rows to compare: per token, per text, or per text over its tokens; padding left out."""
    if name in ("start_logits", "end_logits"):
        for row, keep in enumerate(real):
            yield wanted[row, keep][None], got[row, keep][None]
    elif wanted.ndim == 3 and wanted.shape[:2] == real.shape:
        yield wanted[real], got[real]
    elif wanted.ndim == 3:  # of positions of its own, as many for each text (Perceiver)
        yield wanted.reshape(-1, wanted.shape[-1]), got.reshape(-1, got.shape[-1])
    else:
        yield wanted, got
