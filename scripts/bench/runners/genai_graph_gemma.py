"""The graph of onnxruntime-genai's builder through plain onnxruntime: what that graph can give.

IO binding, and one buffer per layer that is both past and present, so nothing is copied per token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genai_gemma import LEAST_CACHE, prepare
from protocol import generation, serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Greedy generation; logits are read where onnxruntime left them."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    begin = time.perf_counter()
    path = str(Path(job["work"]) / "model.onnx")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    load_s = time.perf_counter() - begin
    config = json.loads((Path(job["work"]) / "genai_config.json").read_text(encoding="utf-8"))
    capacity = max(LEAST_CACHE, len(job["ids"]) + job["new_tokens"])
    caches = _caches(session, config["model"]["decoder"], capacity)
    wanted = {value.name for value in session.get_inputs()}

    def stream(ids: list[int], count: int) -> Iterator[int]:
        step, seen = ids, 0
        for _ in range(count):
            logits = _step(session, caches, wanted, step, seen)
            seen += len(step)
            step = [int(logits[0, -1].argmax())]
            yield step[0]

    return generation(job, load_s, stream)


def _caches(session: Any, config: dict[str, Any], capacity: int) -> dict[str, Any]:
    """Input name -> one buffer of (1, heads, capacity, head_dim) for past and present."""
    import numpy as np
    from onnxruntime import OrtValue

    shape = (1, config["num_key_value_heads"], capacity, config["head_size"])
    names = [value.name for value in session.get_inputs() if "past_key_values." in value.name]
    return {name: OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32)) for name in names}


def _step(session: Any, caches: dict[str, Any], wanted: set[str], ids: list[int], seen: int) -> Any:
    import numpy as np

    total = seen + len(ids)
    feeds = {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, total), np.int64),
        "position_ids": np.arange(seen, total, dtype=np.int64)[None],
    }
    binding = session.io_binding()
    for name in wanted & feeds.keys():
        binding.bind_cpu_input(name, feeds[name])
    for name, buffer in caches.items():
        binding.bind_ortvalue_input(name, buffer)
        binding.bind_ortvalue_output(name.replace("past_key_values", "present"), buffer)
    binding.bind_output("logits", "cpu")
    session.run_with_iobinding(binding)
    return binding.get_outputs()[-1].numpy()


if __name__ == "__main__":
    serve(prepare=prepare, measure=measure)
