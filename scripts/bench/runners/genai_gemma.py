"""onnxruntime-genai: its builder's int4 graph (block 32, level 4), run by its generator."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol import generation, serve

LEAST_CACHE = 512  # Gemma's window: its layers refuse a smaller cache.
OPTIONS = ["block_size=32", "accuracy_level=4"]


def prepare(job: dict[str, Any]) -> dict[str, Any]:
    """Build the int4 model into ``work``."""
    from onnxruntime_genai.models import builder

    _flatten_rope(builder.Gemma3Model)
    work = job["work"]
    target = ("", job["folder"], work, "int4", "cpu", f"{work}/cache")
    options = builder.parse_extra_options(*target, OPTIONS)
    builder.create_model(*target, **options)
    return {}


def _flatten_rope(model: Any) -> None:
    """transformers 5 keeps Gemma's rotary settings per layer kind; the builder wants them flat."""
    original = model.__init__

    def init(self: Any, config: Any, *rest: Any) -> None:
        rope = config.rope_parameters
        config.rope_theta = rope["full_attention"]["rope_theta"]
        config.rope_local_base_freq = rope["sliding_attention"]["rope_theta"]
        config.rope_parameters = dict(rope["full_attention"])
        original(self, config, *rest)

    model.__init__ = init


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Greedy generation with the shared cache that the builder configured."""
    import onnxruntime_genai as genai

    _use_threads(Path(job["work"]) / "genai_config.json", job["threads"])
    begin = time.perf_counter()
    model = genai.Model(job["work"])
    load_s = time.perf_counter() - begin

    def stream(ids: list[int], count: int) -> Iterator[int]:
        parameters = genai.GeneratorParams(model)
        room = max(LEAST_CACHE, len(ids) + count)
        parameters.set_search_options(max_length=room, do_sample=False)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(ids)
        for _ in range(count):
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])

    return generation(job, load_s, stream)


def _use_threads(path: Path, threads: int) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


if __name__ == "__main__":
    serve(prepare=prepare, measure=measure)
