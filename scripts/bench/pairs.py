"""Models that read, hear or see beside PyTorch: published shapes and random weights, in 8 bits.

    python scripts/bench/pairs.py --json out.json
    python scripts/bench/pairs.py --only whisper-base --work .cache/bench

As ``hybrids.py``: no hub is reached, weights are random, and the engine and PyTorch eager (fp32)
have their turns in ``lepton-compile bench``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybrids import benched, write

PAIR, SPEECH = "AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq"


def _halves(heads: int, width: int, inner: int) -> dict[str, int]:
    """Sizes that an encoder and a decoder of six layers have in common."""
    same = {"layers": 6, "attention_heads": heads, "ffn_dim": inner}
    both = {
        f"{half}_{name}": size for name, size in same.items() for half in ("encoder", "decoder")
    }
    return {**both, "d_model": width}


# transformers' configuration and model; what those of the released models say.
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bart-base": ("BartConfig", PAIR, _halves(12, 768, 3072)),
    "flan-t5-base": (  # with its head tied, as transformers makes one
        "T5Config",
        PAIR,
        {
            "d_model": 768,
            "d_kv": 64,
            "d_ff": 2048,
            "num_layers": 12,
            "num_heads": 12,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0,
        },
    ),
    "opus-mt": (
        "MarianConfig",
        PAIR,
        {
            **_halves(8, 512, 2048),
            "vocab_size": 58101,
            "pad_token_id": 58100,
            "decoder_start_token_id": 58100,
            "activation_function": "swish",
            "scale_embedding": True,
        },
    ),
    "whisper-base": ("WhisperConfig", SPEECH, _halves(8, 512, 2048)),
    "vit-base": ("ViTConfig", "AutoModelForImageClassification", {"num_labels": 1000}),
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=tuple(SHAPES), default=tuple(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, help="models and artifacts; default: a scratch folder")
    parser.add_argument("--json", type=Path, help="where the result goes; default: standard output")
    return parser.parse_args(given)


def saved(shape: tuple[str, str, dict[str, Any]], folder: Path) -> int:
    """Write a random model of a shape; returns its parameters."""
    import torch
    import transformers

    kind, auto, sizes = shape
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(getattr(transformers, kind)(**sizes))
    model.save_pretrained(folder)
    if kind == "WhisperConfig":
        transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def measured(name: str, asked: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The figures of one model, as ``bench --json`` has them."""
    parameters = saved(SHAPES[name], work / name)
    return {"parameters": parameters, **benched(work / name, "int8", asked)}


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and write the result."""
    write(arguments(given), measured)


if __name__ == "__main__":
    main()
