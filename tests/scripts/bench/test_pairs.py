"""The comparison of models that read, hear or see: its models are what they are called."""

from __future__ import annotations

import pairs
import pytest
import torch
import transformers


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("bart-base", 139),
        ("flan-t5-base", 223),
        ("opus-mt", 75),
        ("whisper-base", 73),
        ("vit-base", 87),
    ],
)
def test_shapes_are_those_of_the_models(name: str, millions: int) -> None:
    kind, auto, sizes = pairs.SHAPES[name]
    config = getattr(transformers, kind)(**sizes)
    with torch.device("meta"):
        model = getattr(transformers, auto).from_config(config)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_arguments() -> None:
    found = pairs.arguments(["--only", "opus-mt", "--rounds", "2"])
    assert (found.only, found.rounds, found.json) == (["opus-mt"], 2, None)
    with pytest.raises(SystemExit):
        pairs.arguments(["--only", "bert"])
