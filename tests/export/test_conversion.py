"""Experts that a checkpoint keeps one by one, as the stacks that the model has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lepton_compile.errors import CheckpointError
from lepton_compile.export import resolve
from lepton_compile.export.checkpoint import SafetensorsCheckpoint
from lepton_compile.export.conversion import converted
from lepton_compile.export.export import export
from lepton_passes.stacks import Stack

from .harness import save
from .zoo import _EXPERTS, _SMALL_EXPERTS

# More than ten: the tenth comes behind the ninth, and not behind the first.
MANY = 12


def _mixtral() -> Any:
    return transformers.MixtralConfig(**{**_EXPERTS, "num_local_experts": MANY})


def _qwen3() -> Any:
    return transformers.Qwen3MoeConfig(**{**_SMALL_EXPERTS, "num_experts": MANY})


@pytest.mark.parametrize(
    ("config", "kind", "stored"),
    [
        (_mixtral, "MixtralForCausalLM", "block_sparse_moe.experts.11.w3.weight"),
        (_qwen3, "Qwen3MoeForCausalLM", "mlp.experts.11.up_proj.weight"),
    ],
)
def test_experts_are_stacked_in_their_order(
    config: Callable[[], Any], kind: str, stored: str, tmp_path: Path
) -> None:
    model = save(config, "text-generation", tmp_path)
    checkpoint = SafetensorsCheckpoint(tmp_path)
    assert f"model.layers.0.{stored}" in checkpoint.names()
    with torch.device("meta"):
        network = getattr(transformers, kind)(config())
    whole, rename = converted(network, checkpoint)
    state = model.state_dict()
    assert {rename(name) for name in whole.names()} == set(state)
    stacks = [name for name in whole.names() if isinstance(whole.tensor(name), Stack)]
    assert len(stacks) == 2 * 3
    for name in stacks:
        assert whole.names()[name].shape == tuple(state[name].shape)
        np.testing.assert_array_equal(whole.tensor(name).numpy(), state[name].numpy())
        np.testing.assert_array_equal(whole.tensor(name).rows(9, 11), state[name][9:11].numpy())


def _sarvam() -> Any:
    return transformers.SarvamMoEConfig(**_SMALL_EXPERTS, first_k_dense_replace=1)


def test_parts_of_unlike_size_are_as_long_as_what_they_become(tmp_path: Path) -> None:
    """Four heads of queries and two of keys, in one tensor."""
    model = save(_sarvam, "text-generation", tmp_path)
    checkpoint = SafetensorsCheckpoint(tmp_path)
    stored = "model.layers.1.attention.query_key_value.weight"
    assert stored in checkpoint.names()
    with torch.device("meta"):
        network = type(model)(_sarvam())
    whole, rename = converted(network, checkpoint)
    state = model.state_dict()
    found = {rename(name): name for name in whole.names()}
    assert set(found) == set(state)
    for kind in ("q", "k", "v"):
        name = f"model.layers.1.self_attn.{kind}_proj.weight"
        np.testing.assert_array_equal(whole.tensor(found[name]).numpy(), state[name].numpy())


def test_a_missing_expert_is_no_shorter_stack(tmp_path: Path) -> None:
    save(_mixtral, "text-generation", tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.block_sparse_moe.experts.7.w3.weight"]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        export(resolve(str(tmp_path), tmp_path), "text-generation")
    assert "1 missing: model.layers.1.mlp.experts.gate_up_proj" in str(caught.value.found)


def test_a_whole_expert_that_is_missing_changes_the_shape(tmp_path: Path) -> None:
    save(_mixtral, "text-generation", tmp_path)
    file = tmp_path / "model.safetensors"
    gone = [f"model.layers.1.block_sparse_moe.experts.11.w{i}.weight" for i in (1, 2, 3)]
    tensors = load_file(file)
    for name in gone:
        del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        export(resolve(str(tmp_path), tmp_path), "text-generation")
    assert "the model has 12x128x32, the file 11x128x32" in str(caught.value.found)


def test_a_checkpoint_that_has_stacks_already(tmp_path: Path) -> None:
    model = save(_mixtral, "text-generation", tmp_path)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    exported = export(resolve(str(tmp_path), tmp_path), "text-generation")
    name = "model.layers.2.mlp.experts.down_proj"
    found = exported.model.graph.initializers[f"{name}:stack"].const_value
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), model.state_dict()[name].reshape(-1, 64).numpy())
