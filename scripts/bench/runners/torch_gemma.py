"""PyTorch eager, fp32, through transformers: prefill once, then one token at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from protocol import generation, serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Greedy generation with transformers' own cache and only the last position's logits."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job["threads"])
    begin = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.float32).eval()
    load_s = time.perf_counter() - begin

    @torch.inference_mode()
    def stream(ids: list[int], count: int) -> Iterator[int]:
        step, cache = torch.tensor([ids]), None
        for _ in range(count):
            out = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, step = out.past_key_values, out.logits[:, -1:].argmax(-1)
            yield int(step)

    return generation(job, load_s, stream)


if __name__ == "__main__":
    serve(measure=measure)
