"""What every runner shares. Standard library and numpy only: it runs in each tool's environment.

    python runners/TOOL.py prepare|measure '{"folder": …, "work": …, "threads": 2, …}'

A runner gives ``serve`` a function per action, each from the job to something JSON can carry. What
the tool prints goes to standard error; standard output gets one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["Stopwatch", "batches", "encoder", "generation", "serve"]

Job = dict[str, Any]


def serve(**actions: Callable[[Job], Job]) -> None:
    """Carry out the action named on the command line and print its result."""
    action, job = sys.argv[1], json.loads(sys.argv[2])
    kept = os.dup(1)
    os.dup2(2, 1)  # Libraries that print from C++ must not get in between.
    with contextlib.redirect_stdout(sys.stderr):
        result = actions[action](job)
    os.write(kept, (json.dumps(result) + "\n").encode())


class Stopwatch:
    """Times greedy generation: the prompt up to the first token, then each token after it."""

    def __init__(self) -> None:
        self.prefill: list[float] = []
        self.decode: list[float] = []
        self.tokens: list[int] = []

    def follow(self, start: float, stream: Iterator[int]) -> None:
        """Consume ``stream``, whose first token was asked for at ``start``."""
        times, tokens = [], []
        for token in stream:
            times.append(time.perf_counter())
            tokens.append(token)
        self.add(times[0] - start, (times[-1] - times[0]) / (len(times) - 1), tokens)

    def add(self, prefill_s: float, token_s: float, tokens: list[int]) -> None:
        """One generation: seconds to the first token, seconds for each token after it."""
        self.prefill.append(prefill_s)
        self.decode.append(token_s)
        self.tokens = tokens

    def result(self, prompt: int, load_s: float) -> Job:
        """Medians of this process, in tokens per second."""
        return {
            "prefill_tok_s": prompt / statistics.median(self.prefill),
            "decode_tok_s": 1 / statistics.median(self.decode),
            "load_s": load_s,
            "tokens": self.tokens,
        }


def generation(job: Job, load_s: float, stream: Callable[[list[int], int], Iterator[int]]) -> Job:
    """Time ``stream(ids, count)``, which yields ``count`` tokens, after one short warm-up."""
    for _ in stream(job["ids"][:16], 2):
        pass
    watch = Stopwatch()
    for _ in range(job["repeats"]):
        begin = time.perf_counter()
        watch.follow(begin, stream(job["ids"], job["new_tokens"]))
    return watch.result(len(job["ids"]), load_s)


def batches(job: Job) -> dict[str, Any]:
    """Name (``32x128``) -> int64 token ids (batch, sequence)."""
    import numpy as np

    return dict(np.load(job["batches"]))


def _latencies(job: Job, call: Callable[[Any], Any]) -> Job:
    """Median milliseconds of ``call(ids)`` for each batch, warmed up, over ``job["seconds"]``."""
    found = {}
    for name, ids in batches(job).items():
        for _ in range(2):
            call(ids)
        times: list[float] = []
        while len(times) < 3 or sum(times) < job["seconds"]:
            begin = time.perf_counter()
            call(ids)
            times.append(time.perf_counter() - begin)
        found[name] = 1000 * statistics.median(times)
    return found


def _pooled(hidden: Any) -> Any:
    """Mean over the sequence, unit length: (batch, sequence, hidden) -> (batch, hidden)."""
    import numpy as np

    mean = np.asarray(hidden, np.float32).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def encoder(job: Job, call: Callable[[Any], Any]) -> Job:
    """Latencies of ``call(ids) -> last hidden state``, and where its embeddings are kept."""
    import numpy as np

    path = Path(job["work"]) / f"{job['name']}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, _pooled(call(batches(job)["32x128"])))
    return {"ms": _latencies(job, call), "embeddings": str(path)}
