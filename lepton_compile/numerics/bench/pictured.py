"""Seeing and writing: a picture, or a tile of one, and text, 512 tokens together, then 128 out, or
what there is room for.

What is made of the picture and the first token are the first phase; each further token is timed by
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lepton_compile.numerics.bench.case import Case
from lepton_compile.numerics.bench.decoder import Phases, cases_of, eager, lengths_within, steps
from lepton_compile.numerics.pictured_reference import with_pictures
from lepton_compile.numerics.pictured_sample import made_up, shown, tokens_of
from lepton_compile.numerics.sample_text import random_segments
from lepton_compile.progress import Progress

__all__ = ["bench_pictured"]


def bench_pictured(
    model: Any, reference: Any, progress: Progress, *, rounds: int | None
) -> list[Case]:
    """Two cases, the engine and (where given) PyTorch eager in turn."""
    told, rows = model.manifest["generation"], int(model.manifest["ranges"]["batch"][0])
    token, pixels = told["pictures"]["placeholder"], made_up(model, rows)
    places = tokens_of(model, pixels[0])
    length, new = lengths_within(model.manifest["ranges"])
    length, room = max(length, places + 1), int(model.manifest["ranges"]["sequence"][1])
    texts = random_segments(int(told["vocabulary"]), [length - places] * rows)
    behind = [[one for one in text if one != token] for text in texts]
    prompts = [[token] * places + text[: min(map(len, behind))] for text in behind]
    new = max(1, min(new, room - len(prompts[0])))
    rivals: dict[str, Callable[[], Phases]] = {
        "engine": partial(steps, model, [*map(shown, prompts, pixels[:, None])], new)
    }
    if reference is not None:
        import torch

        seen = with_pictures(reference, torch.tensor(prompts), pixels[:, None])
        rivals["eager"] = partial(eager, reference, prompts, new, **seen)
    of_rows = f" of {rows} rows" if rows > 1 else ""
    read = len(prompts[0])
    names = f"see, prefill {read}{of_rows}", f"decode {new}{of_rows}, per token"
    return cases_of(rivals, names, read * rows, rows, progress, rounds)
