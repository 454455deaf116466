"""lepton-compile: greedy generation through the emitted loader, with the times it reports."""

from __future__ import annotations

import time
from typing import Any

from lepton_artifact import load
from protocol import Stopwatch, serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The loader's ``generate``; its decode time includes turning tokens into text."""
    begin = time.perf_counter()
    model = load(job)
    load_s = time.perf_counter() - begin
    model.generate(job["ids"][:16], max_new_tokens=2)
    watch = Stopwatch()
    for _ in range(job["repeats"]):
        model.forget()  # else the prompt would not be read again
        made = model.generate(job["ids"], max_new_tokens=job["new_tokens"])
        steps = max(1, len(made.tokens) - 1)
        watch.add(made.timings["prefill_s"], made.timings["decode_s"] / steps, made.tokens)
    return watch.result(len(job["ids"]), load_s)


if __name__ == "__main__":
    serve(measure=measure)
