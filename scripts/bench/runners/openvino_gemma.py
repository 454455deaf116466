"""OpenVINO GenAI on a model that optimum-intel exported with int4 weights."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from protocol import generation, serve


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Export into ``work`` with optimum-intel's command line."""
    optimum = Path(sys.executable).with_name("optimum-cli")
    task = ("--task", "text-generation-with-past", "--weight-format", "int4")
    command = [optimum, "export", "openvino", "--model", job["folder"], *task, job["work"]]
    subprocess.run([str(part) for part in command], check=True)
    return {}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Greedy generation; the pipeline calls back with each token."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    begin = time.perf_counter()
    pipeline = genai.LLMPipeline(job["work"], "CPU", INFERENCE_NUM_THREADS=job["threads"])
    load_s = time.perf_counter() - begin

    def stream(ids: list[int], count: int) -> Iterator[int]:
        config = genai.GenerationConfig(
            max_new_tokens=count, min_new_tokens=count, do_sample=False, ignore_eos=True
        )
        tokens: SimpleQueue[int | None] = SimpleQueue()
        streamer = _streamer(genai, tokens.put)
        prompt = ov.Tensor(np.array([ids], np.int64))
        mask = ov.Tensor(np.ones((1, len(ids)), np.int64))
        inputs = genai.TokenizedInputs(prompt, mask)

        def work() -> None:
            pipeline.generate(inputs, config, streamer)
            tokens.put(None)

        Thread(target=work, daemon=True).start()
        while (token := tokens.get()) is not None:
            yield token

    return generation(job, load_s, stream)


def _streamer(genai: Any, put: Any) -> Any:
    class Tokens(genai.StreamerBase):
        def write(self, token: int | list[int]) -> Any:
            for one in token if isinstance(token, list) else [token]:
                put(one)
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    return Tokens()


if __name__ == "__main__":
    serve(prepare=prepare, measure=measure)
