"""llama.cpp through llama-cpp-python, on the sample package's own Q4_K_M file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from protocol import generation, serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Greedy generation; the whole prompt is one batch."""
    from llama_cpp import Llama

    begin = time.perf_counter()
    model = Llama(
        job["gguf"],
        n_ctx=len(job["ids"]) + job["new_tokens"],
        n_batch=len(job["ids"]),
        n_ubatch=len(job["ids"]),
        n_threads=job["threads"],
        n_threads_batch=job["threads"],
        verbose=False,
    )
    load_s = time.perf_counter() - begin

    def stream(ids: list[int], count: int) -> Iterator[int]:
        model.reset()
        step = ids
        for _ in range(count):
            model.eval(step)
            step = [model.sample(temp=0.0)]
            yield step[0]

    return generation(job, load_s, stream)


if __name__ == "__main__":
    serve(measure=measure)
