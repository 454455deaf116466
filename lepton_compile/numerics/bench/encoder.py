"""Latency of an encoder at three shapes: a short query, a page, a batch of pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from lepton_compile.numerics.bench.case import Case
from lepton_compile.numerics.bench.feeds import given_to
from lepton_compile.numerics.bench.timing import Timing, alternate
from lepton_compile.numerics.reference import Reference
from lepton_compile.progress import Progress

__all__ = ["bench_encoder", "shapes_within"]

SHAPES = ((1, 16), (1, 128), (32, 128))


def shapes_within(ranges: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The shapes (batch, sequence) moved into the ranges of the artifact, each once."""
    batch, sequence = ranges["batch"], ranges["sequence"]
    moved = [
        (min(max(b, batch[0]), batch[1]), min(max(s, sequence[0]), sequence[1])) for b, s in SHAPES
    ]
    return list(dict.fromkeys(moved))


def bench_encoder(
    model: Any, reference: Any, progress: Progress, *, rounds: int | None
) -> list[Case]:
    """One case per shape, the engine and (where given) PyTorch eager in turn."""
    truth = Reference(reference, model.manifest.get("embedding")) if reference is not None else None
    names = [output["name"] for output in model.manifest["outputs"]]
    shapes = shapes_within(model.manifest["ranges"])
    cases = []
    for number, (batch, sequence) in enumerate(shapes, 1):
        feeds = _feeds(model, batch, sequence)
        rivals: dict[str, Callable[[], object]] = {"engine": partial(model.run, feeds)}
        if truth is not None:
            rivals["eager"] = partial(truth.run, feeds, names)
        seconds = alternate(rivals, rounds=rounds)
        timings = {name: Timing.of(values) for name, values in seconds.items()}
        name, tokens = f"{batch}x{sequence}", batch * sequence
        cases.append(Case(name, timings["engine"], timings.get("eager"), tokens, batch))
        progress.step(f"timing {batch}x{sequence}", number, len(shapes))
    return cases


def _feeds(model: Any, batch: int, sequence: int) -> dict[str, Any]:
    # Low ids: inside every vocabulary, and the cost does not depend on them.
    ids = np.random.default_rng(0).integers(0, 20, (batch, sequence))
    text = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return given_to(model, {**text, "token_type_ids": np.zeros_like(ids)})
