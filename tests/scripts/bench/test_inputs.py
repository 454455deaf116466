"""What the tools of the comparison are given."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from peerbench.inputs import ENCODER_SHAPES, encoder_batches
from peerbench.llama_shaped import SHAPE, SMALL, write_checkpoint
from safetensors import safe_open


def test_the_big_checkpoint_has_eight_billion_parameters() -> None:
    total = sum(int(np.prod(dims)) for _, dims in SHAPE.tensors())
    assert 8.0e9 < total < 8.1e9


def test_a_llama_shaped_checkpoint_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peerbench.llama_shaped.SHARD_BYTES", 1 << 20)
    total = write_checkpoint(tmp_path, SMALL)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shapes = dict(SMALL.tensors())
    assert index["weight_map"].keys() == shapes.keys()
    assert len(set(index["weight_map"].values())) > 1
    assert total == sum(int(np.prod(dims)) for dims in shapes.values())
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / file, "np") as shard:
            values = shard.get_tensor(name)
        assert values.dtype == ml_dtypes.bfloat16
        assert values.shape == shapes[name]
        assert 0.007 < np.abs(values.astype(np.float32)).mean() < 0.016


def test_its_shape_is_what_transformers_builds(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    write_checkpoint(tmp_path, SMALL)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    built = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert built == dict(SMALL.tensors())


@pytest.mark.samples
def test_encoder_batches_have_their_shapes_and_no_padding(tmp_path: Path) -> None:
    with np.load(encoder_batches(tmp_path)) as batches:
        for name, shape in ENCODER_SHAPES.items():
            ids = batches[name]
            assert ids.shape == shape
            assert (ids > 0).all()
            assert (ids[:, 0] == ids[0, 0]).all()
            assert (ids[:, -1] == ids[0, -1]).all()
