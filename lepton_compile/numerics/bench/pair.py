"""Reading and writing of an encoder-decoder: 512 tokens in, 128 out, or what there is room for; of
one that hears, a window of sound in.

The encoder's run and the first token are the first phase; each further token is timed by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lepton_compile.numerics.bench.case import Case
from lepton_compile.numerics.bench.decoder import NEW, PROMPT, Phases, cases_of, steps
from lepton_compile.numerics.sample_sound import heard
from lepton_compile.numerics.sample_text import random_segments
from lepton_compile.progress import Progress

__all__ = ["bench_pair"]


def bench_pair(model: Any, reference: Any, progress: Progress, *, rounds: int | None) -> list[Case]:
    """Two cases, the engine and (where given) PyTorch eager in turn."""
    ranges, told = model.manifest["ranges"], model.manifest["generation"]
    rows, start = int(ranges["batch"][0]), list(told["start"])
    new = min(NEW, int(ranges["sequence"][1]) - len(start))
    if told.get("sound"):
        window = [int(size) for size in model.inputs["encoder_input_features"]["shape"][1:]]
        sources: list[Any] = [*heard((window[0], window[1]), rows)]
        name, read = "hear a window", 0
    else:
        length = min(max(PROMPT, ranges["source"][0]), ranges["source"][1])
        sources = random_segments(int(told["vocabulary"]), [length] * rows)
        name, read = f"read {length}", length * rows
    texts = sources, [start] * rows, new
    rivals: dict[str, Callable[[], Phases]] = {"engine": partial(_engine, model, *texts)}
    if reference is not None:
        rivals["eager"] = partial(_eager, reference, *texts)
    of_rows = f" of {rows} rows" if rows > 1 else ""
    names = f"{name}{of_rows}, first token", f"write {new}{of_rows}, per token"
    return cases_of(rivals, names, read, rows, progress, rounds)


def _engine(model: Any, sources: list[Any], starts: list[list[int]], new: int) -> Phases:
    def read(cache: Any) -> None:
        cache.session = model.session.reading(sources)

    return steps(model, starts, new, read)


def _eager(reference: Any, sources: list[Any], starts: list[list[int]], new: int) -> Phases:
    """The same greedy loop in PyTorch."""
    import torch

    from lepton_compile.export.tasks import cache_name

    cache, seconds = cache_name(reference), []
    with torch.inference_mode():
        begin = time.perf_counter()
        sound = isinstance(sources[0], np.ndarray)
        name = "input_features" if sound else "input_ids"
        source = torch.from_numpy(np.stack(sources)) if sound else torch.tensor(sources)
        given = {"encoder_outputs": reference.get_encoder()(**{name: source})}
        found = reference(decoder_input_ids=torch.tensor(starts), use_cache=True, **given)
        token = found.logits[:, -1:].argmax(-1)
        first = time.perf_counter() - begin
        for _ in range(new - 1):
            begin = time.perf_counter()
            given[cache] = found[cache]
            found = reference(decoder_input_ids=token, use_cache=True, **given)
            token = found.logits[:, -1:].argmax(-1)
            seconds.append(time.perf_counter() - begin)
    return first, seconds
