"""Vision-language models beside PyTorch: published shapes and random weights, in 8 bits.

    python scripts/bench/seeing.py --json out.json
    python scripts/bench/seeing.py --only smolvlm-256m --work .cache/bench

As ``hybrids.py``, which has the rest of this: ``lepton-compile bench`` gives both a tile of a
picture and a text, 512 tokens together. A tile has 64 of them in SmolVLM, and 256 in InternVL; a
picture of 12 x 10 tokens has 120 in all others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hybrids

# What the configurations of the released models say, by transformers' names for them.
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "smolvlm-256m": (
        "SmolVLMConfig",
        {"scale_factor": 4, "image_token_id": 49190},
        {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
        },
        {
            "model_type": "llama",
            "vocab_size": 49280,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
        },
    ),
    "internvl3-1b": (
        "InternVLConfig",
        {"downsample_ratio": 0.5, "image_token_id": 65000},
        {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": [448, 448],
            "patch_size": [14, 14],
            "attention_bias": True,
        },
        {
            "model_type": "qwen2",
            "vocab_size": hybrids.VOCABULARY,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-vl-2b": (
        "Qwen3VLConfig",
        {"image_token_id": 65000, "tie_word_embeddings": True},
        {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        {
            "vocab_size": hybrids.VOCABULARY,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
            },
        },
    ),
    # Of its text the vocabulary alone is smaller, and what its layers are given of each token.
    "gemma4-e2b": (
        "Gemma4Config",
        {
            "image_token_id": 65000,
            "video_token_id": 65001,
            "audio_token_id": 65002,
            "audio_config": None,
        },
        {"use_clipped_linears": True},
        {
            "vocab_size": hybrids.VOCABULARY,
            "vocab_size_per_layer_input": hybrids.VOCABULARY,
            "hidden_size": 1536,
            "intermediate_size": 6144,
            "num_hidden_layers": 35,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "global_head_dim": 512,
            "num_kv_shared_layers": 20,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 256,
            "layer_types": [*["sliding_attention"] * 4, "full_attention"] * 7,
            "final_logit_softcapping": 30.0,
        },
    ),
    "qwen3.5-0.8b": (
        "Qwen3_5Config",
        {"image_token_id": 65000, "tie_word_embeddings": True},
        {
            "depth": 12,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_heads": 12,
            "out_hidden_size": 1024,
        },
        {"vocab_size": hybrids.VOCABULARY, **hybrids.SHAPES["qwen3.5-0.8b"][1]},
    ),
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    return hybrids.arguments(given, SHAPES)


def configured(name: str, layers: int | None = None) -> Any:
    """The configuration of a model; of fewer ``layers``, to try it out."""
    import transformers

    kind, options, eyes, text = SHAPES[name]
    parts = ({**part, **({"num_hidden_layers": layers} if layers else {})} for part in (eyes, text))
    vision, words = parts
    return getattr(transformers, kind)(vision_config=vision, text_config=words, **options)


def save(name: str, folder: Path, layers: int | None = None) -> int:
    """Write a model of this shape; returns its parameters. It is gone from memory then."""
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    config = configured(name, layers)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def measured(name: str, asked: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The figures of one model, as ``bench --json`` has them."""
    parameters = save(name, work / name, asked.layers)
    return {"parameters": parameters, **hybrids.benched(work / name, "int8", asked)}


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and write the result."""
    hybrids.write(arguments(given), measured)


if __name__ == "__main__":
    main()
