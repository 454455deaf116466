"""Prefill and decode of a decoder: 512 tokens in, 128 out, or what the cache has room for.

Each token is timed by itself, through the cache that the loader generates with: the likeliest token
goes in, and an end of the text is not an end of the measurement. One row, or as many as the engine
takes at least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from lepton_compile.errors import EngineError
from lepton_compile.numerics.bench.case import Case
from lepton_compile.numerics.bench.feeds import given_to
from lepton_compile.numerics.bench.timing import Timing
from lepton_compile.numerics.engine import generates
from lepton_compile.numerics.sample_text import random_segments
from lepton_compile.progress import Progress

__all__ = ["Phases", "bench_decoder", "cases_of", "eager", "lengths_within", "steps"]

PROMPT = 512
NEW = 128
ROUNDS = 3
LOW = 20  # ids inside every vocabulary, for a graph that came as ONNX and says nothing of its own

Phases = tuple[float, list[float]]
"""Seconds until the first token, and of each token after it."""


def lengths_within(ranges: Mapping[str, Any]) -> tuple[int, int]:
    """Prompt and new tokens that fit into the cache together, four to one where it is small."""
    room = int(ranges["sequence"][1])
    prompt = min(PROMPT, room * 4 // 5)
    return prompt, min(NEW, room - prompt)


def bench_decoder(
    model: Any, reference: Any, progress: Progress, *, rounds: int | None
) -> list[Case]:
    """Two cases, the engine and (where given) PyTorch eager in turn."""
    prompt_length, new = lengths_within(model.manifest["ranges"])
    rows = int(model.manifest["ranges"]["batch"][0])
    alone = not generates(model.manifest)
    vocabulary = int((model.manifest.get("generation") or {}).get("vocabulary") or LOW)
    prompts = random_segments(vocabulary, [prompt_length] * rows)
    rivals: dict[str, Callable[[], Phases]] = {
        "engine": partial(_prefill if alone else _engine, model, prompts, new)
    }
    if reference is not None:
        rivals["eager"] = partial(eager, reference, prompts, 1 if alone else new)
    of_rows = f" of {rows} rows" if rows > 1 else ""
    names = f"prefill {prompt_length}{of_rows}", f"decode {new}{of_rows}, per token"
    return cases_of(rivals, names, prompt_length * rows, rows, progress, rounds)


def cases_of(
    rivals: Mapping[str, Callable[[], Phases]],
    names: tuple[str, str],
    read: int,
    rows: int,
    progress: Progress,
    rounds: int | None,
) -> list[Case]:
    """Rivals in turn, and the case of each of the two phases; the second where there is one.

    Args:
        names: of the cases.
        read: tokens that the first phase reads.
        rows: texts that are written at a time.
    """
    found: dict[str, list[Phases]] = {name: [] for name in rivals}
    rivals["engine"]()
    count = rounds or ROUNDS
    for number in range(1, count + 1):
        for name, call in rivals.items():
            found[name].append(call())
        progress.step("generating", number, count)
    first = {name: Timing.of([run[0] for run in runs]) for name, runs in found.items()}
    each = {name: [t for _, rest in runs for t in rest] for name, runs in found.items()}
    decode = {name: Timing.of(seconds) for name, seconds in each.items() if seconds}
    cases = [Case(names[0], first["engine"], first.get("eager"), read)]
    if "engine" in decode:
        cases.append(Case(names[1], decode["engine"], decode.get("eager"), rows))
    return cases


def _engine(model: Any, prompts: list[list[int]], new: int) -> Phases:
    """What the loader does between two tokens, without the text they make.

    Raises EngineError: here nothing stands between the runtime and us that says what failed.
    """
    try:
        return steps(model, prompts, new)
    except Exception as error:
        raise EngineError(
            "the engine fails while it is measured",
            where=str(model.target),
            found=f"{len(prompts)} x {len(prompts[0])} tokens and {new} new: {error}",
            hint="`lepton-compile verify` says whether it runs at all; else build it again",
        ) from error


def steps(
    model: Any, prompts: list[list[int]], new: int, before: Callable[[Any], None] = lambda _: None
) -> Phases:
    """Seconds of the prompts and of each token; ``before`` gets the cache first, and is timed."""
    cache, alive = model.new_cache(len(prompts), len(prompts[0]) + new), [True] * len(prompts)
    seconds = []
    try:
        begin = time.perf_counter()
        before(cache)
        tokens = cache.start(prompts).argmax(-1).tolist()
        first = time.perf_counter() - begin
        for _ in range(new - 1):
            begin = time.perf_counter()
            tokens = cache.step(tokens, alive).argmax(-1).tolist()
            seconds.append(time.perf_counter() - begin)
    finally:
        cache.close()
    return first, seconds


def _prefill(model: Any, prompts: list[list[int]], new: int) -> Phases:
    """An engine that cannot generate is asked for the first token alone."""
    ids = np.array(prompts, np.int64)
    text = {"input_ids": ids, "attention_mask": np.ones_like(ids), "logits_to_keep": np.array(1)}
    feeds = given_to(model, text)
    start = time.perf_counter()
    model.run(feeds, ["logits"])
    return time.perf_counter() - start, []


def eager(reference: Any, prompts: list[list[int]], new: int, **seen: Any) -> Phases:
    """The same greedy loop in PyTorch: no generation machinery to blame for the difference.

    Args:
        seen: what the prompts are given besides.
    """
    import torch

    from lepton_compile.export.tasks import cache_name

    ids, cache, seconds = torch.tensor(prompts), cache_name(reference), []
    with torch.inference_mode():
        begin = time.perf_counter()
        found = reference(input_ids=ids, use_cache=True, logits_to_keep=1, **seen)
        token = found.logits[:, -1:].argmax(-1)
        first = time.perf_counter() - begin
        for _ in range(new - 1):
            begin = time.perf_counter()
            found = reference(input_ids=token, use_cache=True, **{cache: found[cache]})
            token = found.logits[:, -1:].argmax(-1)
            seconds.append(time.perf_counter() - begin)
    return first, seconds
