"""The comparison of decoders with states: its models are what they are called."""

from __future__ import annotations

import hybrids
import pytest
import torch
import transformers


@pytest.mark.parametrize(("name", "millions"), [("lfm2-350m", 354), ("qwen3.5-0.8b", 565)])
def test_shapes_are_those_of_the_models(name: str, millions: int) -> None:
    """With the vocabulary cut."""
    kind, sizes = hybrids.SHAPES[name]
    config = getattr(transformers, kind)(vocab_size=hybrids.VOCABULARY, **sizes)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions
    assert len(set(config.layer_types)) == 2


def test_arguments() -> None:
    found = hybrids.arguments(["--only", "lfm2-350m", "--rounds", "2"])
    assert (found.only, found.rounds, found.json) == (["lfm2-350m"], 2, None)
    with pytest.raises(SystemExit):
        hybrids.arguments(["--only", "bert"])
