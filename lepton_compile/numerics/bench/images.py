"""Latency of an engine that sees: one picture, a few, a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lepton_compile.numerics.bench.case import Case
from lepton_compile.numerics.bench.timing import Timing, alternate
from lepton_compile.numerics.verify_images import PIXELS, Seeing, pixels_of
from lepton_compile.progress import Progress

__all__ = ["bench_images"]

BATCHES = (1, 8, 32)


def bench_images(
    model: Any, reference: Any, progress: Progress, *, rounds: int | None
) -> list[Case]:
    """One case per batch, the engine and (where given) PyTorch eager in turn."""
    embedding = model.manifest.get("embedding")
    truth = Seeing(reference, embedding) if reference is not None else None
    names = [output["name"] for output in model.manifest["outputs"]]
    least, most = model.manifest["ranges"]["batch"]
    batches = list(dict.fromkeys(min(max(batch, least), most) for batch in BATCHES))
    pixels, cases = pixels_of(model, max(batches)), []
    for number, batch in enumerate(batches, 1):
        given = pixels[:batch]
        rivals: dict[str, Callable[[], object]] = {"engine": partial(model.run, {PIXELS: given})}
        if truth is not None:
            rivals["eager"] = partial(truth.run, given, names)
        seconds = alternate(rivals, rounds=rounds)
        timings = {name: Timing.of(values) for name, values in seconds.items()}
        name = f"{batch} image{'s' if batch > 1 else ''}"
        cases.append(Case(name, timings["engine"], timings.get("eager"), rows=batch))
        progress.step(f"timing {name}", number, len(batches))
    return cases
