"""Decoders with states beside PyTorch: models of published shapes and random weights, in 4 bits.

    python scripts/bench/hybrids.py --json out.json
    python scripts/bench/hybrids.py --only lfm2-350m --work .cache/bench

No hub is reached here, so the weights are random; speed does not depend on them. Each model is
saved, built for ``ort-cpu`` and measured by ``lepton-compile bench``, which lets the engine and
PyTorch eager (fp32) have their turns; the vocabularies are cut to 65,536.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from outcome import tell, where

VOCABULARY = 65536
# What the configurations of the released models say, by transformers' names for them.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "lfm2-350m": (
        "Lfm2Config",
        {
            "hidden_size": 1024,
            "intermediate_size": 6656,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "layer_types": [
                "full_attention" if layer in (2, 5, 8, 10, 12, 14) else "conv"
                for layer in range(16)
            ],
        },
    ),
    "qwen3.5-0.8b": (
        "Qwen3_5TextConfig",
        {
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 24,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 16,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "tie_word_embeddings": True,
        },
    ),
}
PACKAGES = ("torch", "transformers", "onnxruntime", "lepton-compile")


def arguments(
    given: Sequence[str] | None = None, shapes: Iterable[str] = tuple(SHAPES)
) -> argparse.Namespace:
    """What the command line says; ``shapes`` are the names that there are."""
    parser = argparse.ArgumentParser(description="Models of random weights beside PyTorch.")
    parser.add_argument("--only", nargs="+", choices=tuple(shapes), default=tuple(shapes))
    parser.add_argument("--layers", type=int, help="fewer of them, to try it out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="models and artifacts; default: a scratch folder")
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    return parser.parse_args(given)


def save(name: str, folder: Path, layers: int | None = None) -> int:
    """Write a model of this shape; returns its parameters."""
    import torch
    import transformers

    kind, sizes = SHAPES[name]
    config = getattr(transformers, kind)(vocab_size=VOCABULARY, **sizes)
    if layers is not None:
        config.num_hidden_layers = layers
        config.layer_types = config.layer_types[:layers]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def measured(name: str, asked: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The figures of one model, as ``bench --json`` has them."""
    parameters = save(name, work / name, asked.layers)
    return {"parameters": parameters, **benched(work / name, "int4", asked)}


def benched(model: Path, quantize: str, asked: argparse.Namespace) -> dict[str, Any]:
    """What ``bench --json`` says of a model's engine, which is built beside it."""
    built = model.with_name(f"{model.name}-{quantize}")
    command = [sys.executable, "-m", "lepton_compile"]
    build = ["build", "--model", str(model), "--quantize", quantize, "-o", str(built), "-q"]
    subprocess.run([*command, *build, "--no-check", "--no-verify"], check=True)
    bench = ["bench", str(built), "--json", "--rounds", str(asked.rounds)]
    bench += ["--threads", str(asked.threads)]
    done = subprocess.run([*command, *bench], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and write the result."""
    write(arguments(given), measured)


def write(
    asked: argparse.Namespace, measure: Callable[[str, argparse.Namespace, Path], dict[str, Any]]
) -> None:
    """The figures of each model that is asked for, with the machine and the versions."""
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    with tempfile.TemporaryDirectory() as scratch:
        work = asked.work or Path(scratch)
        found = {name: measure(name, asked, work) for name in asked.only}
    tell({**where(PACKAGES), "models": found}, asked.json)


if __name__ == "__main__":
    main()
