"""How long a token takes by the number of those before it, with attention of several kinds.

    python scripts/bench/contexts.py --json out.json
    python scripts/bench/contexts.py --shape gpt-oss-20b --layers 4 --json out.json

Models of published shapes, with random weights in 4 bits. Qwen3 0.6B has 8 heads of keys in each of
28 layers, so that a cache soon has as much to read as the weights: its caches are of halves, floats
and bytes. GPT-OSS has sinks, and windows in every other layer: attention is our own, or that of
onnxruntime. It is given 4 of its 32 experts, those that a token is sent to, and as many layers as
are asked for. All engines are built from one model, and their loaders have their turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hybrids import PACKAGES
from outcome import tell, where


@dataclass(frozen=True)
class Shape:
    """The class of a configuration, what that of a released model says, and what the recipe of each
    engine has besides."""

    config: str
    settings: dict[str, Any]
    engines: dict[str, str]


SHAPES = {
    "qwen3-0.6b": Shape(
        "Qwen3Config",
        {
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": True,
            "max_position_embeddings": 4096,
        },
        {
            "halves": "passes.disable=[]",
            "floats": "passes.disable=[lower-half-cache]",
            "bytes": "quantize.cache=int8",
        },
    ),
    "gpt-oss-20b": Shape(
        "GptOssConfig",
        {
            "vocab_size": 65536,
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_hidden_layers": 24,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "sliding_window": 128,
            "num_local_experts": 4,
            "num_experts_per_tok": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 150000.0},
            "max_position_embeddings": 4096,
        },
        {
            "ours": "passes.disable=[]",
            "onnxruntime": "passes.disable=[lower-native-attention]",
        },
    ),
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=tuple(SHAPES), default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--contexts", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--tokens", type=int, default=24, help="that are written behind each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quantize", default="int4")
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    return parser.parse_args(given)


def save(config: str, settings: dict[str, Any], folder: Path) -> Path:
    """The model, in bfloat16."""
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, config)(**settings)
    model = transformers.AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def build(model: Path, output: Path, quantize: str, changed: str) -> Path:
    """An engine of it."""
    command = [sys.executable, "-m", "lepton_compile", "build", "--model", str(model), "-q"]
    command += ["--quantize", quantize, "--no-check", "--no-verify", "-o", str(output)]
    subprocess.run([*command, "--set", changed], check=True)
    return output


def measured(engines: dict[str, Path], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians for each context and engine: milliseconds to the first token, and of each other."""
    import lepton_compile as lc

    draw, found = np.random.default_rng(0), []
    models = {name: lc.load(path, threads=asked.threads) for name, path in engines.items()}
    for context in asked.contexts:
        prompt = draw.integers(3, asked.vocabulary, context).tolist()
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
        for _ in range(asked.rounds + 1):
            for name, model in models.items():
                model.forget()
                made = model.generate(prompt, max_new_tokens=asked.tokens).timings
                each = made["decode_s"] / (asked.tokens - 1)
                times[name].append((1e3 * made["prefill_s"], 1e3 * each))
        medians = {
            name: [statistics.median(column) for column in zip(*taken[1:], strict=True)]
            for name, taken in times.items()
        }
        found.append(
            {"context": context}
            | {name: {"prefill_ms": a, "decode_ms": b} for name, (a, b) in medians.items()}
        )
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and write the result."""
    asked = arguments(given)
    shape = SHAPES[asked.shape]
    layers = {"num_hidden_layers": asked.layers} if asked.layers else {}
    settings = {**shape.settings, **layers}
    asked.vocabulary = settings["vocab_size"]
    with tempfile.TemporaryDirectory() as scratch:
        model = save(shape.config, settings, Path(scratch) / "model")
        engines = {
            name: build(model, Path(scratch) / name, asked.quantize, changed)
            for name, changed in shape.engines.items()
        }
        found = measured(engines, asked)
    told = {
        "shape": {"name": asked.shape, **settings},
        "quantize": asked.quantize,
        "threads": asked.threads,
    }
    tell({**where(PACKAGES), **told, "contexts": found}, asked.json)


if __name__ == "__main__":
    main()
