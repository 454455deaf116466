"""The comparison of vision-language models: its models are what they are called."""

from __future__ import annotations

import pytest
import seeing
import torch
from transformers import AutoModelForImageTextToText


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("smolvlm-256m", 256),
        ("internvl3-1b", 725),
        ("qwen3-vl-2b", 1951),
        ("qwen3.5-0.8b", 666),
        ("gemma4-e2b", 2734),
    ],
)
def test_shapes_are_those_of_the_models(name: str, millions: int) -> None:
    """Most with the vocabulary cut."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(seeing.configured(name))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_arguments() -> None:
    found = seeing.arguments(["--only", "internvl3-1b", "--layers", "1"])
    assert (found.only, found.layers) == (["internvl3-1b"], 1)
    assert seeing.configured("internvl3-1b", found.layers).vision_config.num_hidden_layers == 1
    with pytest.raises(SystemExit):
        seeing.arguments(["--only", "lfm2-350m"])
