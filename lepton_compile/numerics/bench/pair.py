"""Reading and writing of an encoder-decoder: 512 tokens in, 128 out, or what there is room for.

The encoder's run and the first token are the first phase; each further token is timed by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from lepton_compile.numerics.bench.case import Case
from lepton_compile.numerics.bench.decoder import NEW, PROMPT, Phases, cases_of, steps
from lepton_compile.numerics.sample_text import random_segments
from lepton_compile.progress import Progress

__all__ = ["bench_pair"]


def bench_pair(
    model: Any, reference: Any, progress: Progress, *, budget: float, rounds: int | None
) -> list[Case]:
    """Two cases, the engine and (where given) PyTorch eager in turn."""
    ranges, told = model.manifest["ranges"], model.manifest["generation"]
    rows, (least, most) = int(ranges["batch"][0]), ranges["source"]
    length = min(max(PROMPT, least), most)
    new = min(NEW, int(ranges["sequence"][1]) - len(told["start"]))
    sources = random_segments(int(told["vocabulary"]), [length] * rows)
    starts = [told["start"]] * rows
    texts = sources, starts, new
    rivals: dict[str, Callable[[], Phases]] = {"engine": partial(_engine, model, *texts)}
    if reference is not None:
        rivals["eager"] = partial(_eager, reference, *texts)
    of_rows = f" of {rows} rows" if rows > 1 else ""
    names = f"read {length}{of_rows}, first token", f"write {new}{of_rows}, per token"
    return cases_of(rivals, names, length * rows, rows, progress, rounds)


def _engine(model: Any, sources: list[list[int]], starts: list[list[int]], new: int) -> Phases:
    def read(cache: Any) -> None:
        cache.session = model.session.reading(sources)

    return steps(model, starts, new, read)


def _eager(reference: Any, sources: list[list[int]], starts: list[list[int]], new: int) -> Phases:
    """The same greedy loop in PyTorch."""
    import torch

    seconds = []
    with torch.inference_mode():
        begin = time.perf_counter()
        ids = torch.tensor(sources)
        given = {"encoder_outputs": reference.get_encoder()(input_ids=ids)}
        found = reference(decoder_input_ids=torch.tensor(starts), use_cache=True, **given)
        token = found.logits[:, -1:].argmax(-1)
        first = time.perf_counter() - begin
        for _ in range(new - 1):
            begin = time.perf_counter()
            given["past_key_values"] = found.past_key_values
            found = reference(decoder_input_ids=token, use_cache=True, **given)
            token = found.logits[:, -1:].argmax(-1)
            seconds.append(time.perf_counter() - begin)
    return first, seconds
