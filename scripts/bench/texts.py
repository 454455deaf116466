"""How long encoders take by the length of a text, with our attention and with that of onnxruntime.

    python scripts/bench/texts.py --json out.json
    python scripts/bench/texts.py --only modernbert-base --layers 4

Models of published shapes, with random weights in 8 bits: Qwen3-Embedding 0.6B, whose heads share
keys, and ModernBERT base, of whose layers two in three see a window of 128 tokens. Both engines of
a model are built from it, and their loaders have their turns. Vocabularies are cut, for a table is
not what is timed here.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contexts
import numpy as np
from hybrids import PACKAGES
from outcome import tell, where

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-embedding-0.6b": (
        "Qwen3Config",
        {**contexts.SHAPES["qwen3-0.6b"].settings, "vocab_size": 32768},
    ),
    "modernbert-base": ("ModernBertConfig", {}),
}
ENGINES = {
    "ours": "passes.disable=[]",
    "onnxruntime": "passes.disable=[lower-grouped-attention]",
}
"""What their recipe has besides."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES))
    parser.add_argument("--layers", type=int, help="fewer than the model has")
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 512, 2048])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    return parser.parse_args(given)


def save(config: str, settings: dict[str, Any], folder: Path) -> Path:
    """A model of random weights, in bfloat16."""
    import torch
    import transformers

    torch.manual_seed(0)
    made = getattr(transformers, config)(**settings)
    transformers.AutoModel.from_config(made, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def build(model: Path, output: Path, changed: str) -> Path:
    """An engine of it."""
    command = [sys.executable, "-m", "lepton_compile", "build", "--model", str(model), "-q"]
    command += ["--task", "feature-extraction", "--quantize", "int8", "--no-check", "--no-verify"]
    subprocess.run([*command, "-o", str(output), "--set", changed], check=True)
    return output


def measured(engines: dict[str, Path], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of each length, in milliseconds."""
    import lepton_compile as lc

    draw, found = np.random.default_rng(0), []
    models = {name: lc.load(path, threads=asked.threads) for name, path in engines.items()}
    for length in asked.lengths:
        feeds = {"input_ids": draw.integers(5, 1000, (1, length))}
        times: dict[str, list[float]] = {name: [] for name in models}
        for _ in range(asked.rounds + 1):
            for name, model in models.items():
                begin = time.perf_counter()
                model.run(feeds)
                times[name].append(1e3 * (time.perf_counter() - begin))
        medians = {f"{name}_ms": statistics.median(each[1:]) for name, each in times.items()}
        found.append({"tokens": length, **medians})
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and write the result."""
    asked, found = arguments(given), {}
    for name in asked.only:
        config, settings = SHAPES[name]
        layers = {"num_hidden_layers": asked.layers} if asked.layers else {}
        with tempfile.TemporaryDirectory() as scratch:
            model = save(config, {**settings, **layers}, Path(scratch) / "model")
            engines = {
                each: build(model, Path(scratch) / each, changed)
                for each, changed in ENGINES.items()
            }
            found[name] = measured(engines, asked)
    tell({**where(PACKAGES), "threads": asked.threads, "texts": found}, asked.json)


if __name__ == "__main__":
    main()
