"""LoRA adapters, merged into the weights as they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lepton_compile.errors import CheckpointError, LeptonError, SourceError
from lepton_compile.export import resolve
from lepton_compile.export.checkpoint import SafetensorsCheckpoint
from lepton_compile.export.checkpoint.adapted import AdaptedCheckpoint
from tests.small import llama, saved

LAYER, TABLE = "model.layers.0.mlp.up_proj", "model.embed_tokens"
ROWS, COLUMNS, RANK = 12, 8, 4


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def base(folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    weights = {f"{LAYER}.weight": random(ROWS, COLUMNS), f"{TABLE}.weight": random(20, COLUMNS)}
    weights["model.norm.weight"] = random(COLUMNS)
    save_file(weights, folder / "model.safetensors")
    return weights


def adapter(folder: Path, tensors: dict[str, torch.Tensor], **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, folder / "adapter_model.safetensors")
    text = json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 6, **settings})
    (folder / "adapter_config.json").write_text(text)
    return folder


def pair(rows: int = ROWS, columns: int = COLUMNS, rank: int = RANK) -> dict[str, torch.Tensor]:
    down, up = random(rank, columns), random(rows, rank)
    return {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 6 / 4),
        ({"use_rslora": True}, 6 / 2),
        ({"alpha_pattern": {"up_proj": 10}}, 10 / 4),
        ({"alpha_pattern": {"down_proj": 10}}, 6 / 4),
    ],
)
def test_a_product_is_added(settings: dict[str, Any], scale: float, tmp_path: Path) -> None:
    weights, tensors = base(tmp_path / "base"), pair()
    folder = adapter(tmp_path / "lora", tensors, **settings)
    found = AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder)
    down, up = tensors.values()
    wanted = (weights[f"{LAYER}.weight"] + scale * up @ down).numpy()
    tensor = found.tensor(f"{LAYER}.weight")
    np.testing.assert_allclose(tensor.numpy(), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tensor.rows(3, 7), wanted[3:7], rtol=1e-5, atol=1e-6)
    assert set(found.names()) == set(weights)
    norm = weights["model.norm.weight"].numpy()
    np.testing.assert_array_equal(found.tensor("model.norm.weight").numpy(), norm)


def test_tables_and_weights_that_are_stored_turned(tmp_path: Path) -> None:
    weights = base(tmp_path / "base")
    down, up = random(RANK, 20), random(COLUMNS, RANK)
    own = {f"{TABLE}.lora_embedding_A": down, f"{TABLE}.lora_embedding_B": up}
    turned = pair(rows=COLUMNS, columns=ROWS)
    folder = adapter(tmp_path / "lora", {**own, **turned}, fan_in_fan_out=True)
    found = AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder)
    table = weights[f"{TABLE}.weight"] + 1.5 * (up @ down).T
    tensor = found.tensor(f"{TABLE}.weight")
    np.testing.assert_allclose(tensor.numpy(), table.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tensor.rows(11, 13), table[11:13].numpy(), rtol=1e-5, atol=1e-6)
    a, b = turned.values()
    wanted = weights[f"{LAYER}.weight"] + 1.5 * (b @ a).T
    layer = found.tensor(f"{LAYER}.weight").numpy()
    np.testing.assert_allclose(layer, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_a_product_is_added_to_the_weight_that_comes_with_it(tmp_path: Path) -> None:
    base(tmp_path / "base")
    own, tensors = random(ROWS, COLUMNS) * 2, pair()
    brought = {f"{LAYER}.base_layer.weight": own.to(torch.bfloat16), **tensors}
    found = AdaptedCheckpoint(
        SafetensorsCheckpoint(tmp_path / "base"), adapter(tmp_path / "lora", brought)
    )
    down, up = tensors.values()
    wanted = own.to(torch.bfloat16).float() + 1.5 * up @ down
    tensor = found.tensor(f"{LAYER}.weight")
    np.testing.assert_allclose(tensor.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)
    assert found.names()[f"{LAYER}.weight"].dtype == tensor.dtype


def test_what_was_trained_as_a_whole_takes_the_place(tmp_path: Path) -> None:
    base(tmp_path / "base")
    folder = adapter(tmp_path / "lora", {"model.norm.weight": torch.ones(COLUMNS)})
    found = AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder)
    np.testing.assert_array_equal(found.tensor("model.norm.weight").numpy(), np.ones(COLUMNS))


STRANGE: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any], str]] = {
    "a kind": ({}, {"peft_type": "IA3"}, "cannot be merged"),
    "no kind": ({}, {"peft_type": None}, "cannot be merged"),
    "magnitudes": (pair(), {"use_dora": True}, "cannot be merged"),
    "a changed base": (pair(), {"init_lora_weights": "pissa"}, "cannot be merged"),
    "experts": (pair(), {"target_parameters": ["mlp.experts.down_proj"]}, "cannot be merged"),
    "no scale": (pair(), {"lora_alpha": None}, "no scale"),
    "a scale that is none": (pair(), {"lora_alpha": float("nan")}, "no scale"),
    "a scale without end": (pair(), {"alpha_pattern": {"up_proj": float("inf")}}, "no scale"),
    "a scale of 400 digits": (pair(), {"lora_alpha": 10**400}, "no scale"),
    "a pattern": (pair(), {"alpha_pattern": {"(": 3}}, "no scale"),
    "patterns that are a list": (pair(), {"alpha_pattern": ["up_proj"]}, "no scale"),
    "another width": (pair(columns=COLUMNS + 1), {}, "does not fit"),
    "a pair of numbers": ({name: torch.ones(()) for name in pair()}, {}, "does not fit"),
    "half a pair": (dict([next(iter(pair().items()))]), {}, "does not fit"),
    "no such layer": ({"model.layers.7.weight": torch.ones(3)}, {}, "does not fit"),
    "rank 0": (pair(rank=0), {}, "does not fit"),
    "a rank of 0": (pair(), {"r": 0}, "no rank"),
    "a rank that is none": (pair(), {"r": "4"}, "no rank"),
    "another rank": (pair(), {"r": 8}, "settings are not those"),
    "another rank of a layer": (pair(), {"rank_pattern": {"up_proj": 8}}, "rank_pattern"),
    "a pattern of ranks": (pair(), {"rank_pattern": {"(": 3}}, "settings are not those"),
    "ranks that are a list": (pair(), {"rank_pattern": ["up_proj"]}, "settings are not those"),
    "a whole that is not there": (pair(), {"modules_to_save": ["norm"]}, "trained as a whole"),
    "a head of its own": ({"lm_head.weight": random(20, COLUMNS)}, {}, "does not fit"),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_not_merged(case: str, tmp_path: Path) -> None:
    tensors, settings, message = STRANGE[case]
    base(tmp_path / "base")
    folder = adapter(tmp_path / "lora", tensors, **settings)
    with pytest.raises(LeptonError, match=message) as caught:
        AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder)
    assert isinstance(caught.value, SourceError | CheckpointError)
    assert caught.value.where


DOWN, UP = (f"{LAYER}.{half}.weight" for half in ("lora_A", "lora_B"))
MISFITS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "columns": (
        {DOWN: random(RANK, COLUMNS + 1), UP: random(ROWS, RANK)},
        f"{LAYER}.weight is [12, 8], the adapter's lora_A [4, 9] and lora_B [12, 4]",
    ),
    "rows": (
        {DOWN: random(RANK, COLUMNS), UP: random(ROWS + 1, RANK)},
        f"{LAYER}.weight is [12, 8], the adapter's lora_A [4, 8] and lora_B [13, 4]",
    ),
    "ranks": (
        {DOWN: random(RANK, COLUMNS), UP: random(ROWS, RANK + 1)},
        f"{LAYER}.weight is [12, 8], the adapter's lora_A [4, 8] and lora_B [12, 5]",
    ),
    "no B": ({DOWN: random(RANK, COLUMNS)}, f"base_model.model.{DOWN} without its lora_B"),
    "no A": ({UP: random(ROWS, RANK)}, f"base_model.model.{UP} without its lora_A"),
    "a table": (
        {
            f"{TABLE}.lora_embedding_A": random(RANK, 21),
            f"{TABLE}.lora_embedding_B": random(COLUMNS, RANK),
        },
        f"{TABLE}.weight is [20, 8], the adapter's lora_embedding_A [4, 21] and "
        "lora_embedding_B [8, 4]",
    ),
    "a whole": (
        {"model.norm.weight": torch.ones(COLUMNS + 1)},
        "model.norm.weight is [9], the model's [8]",
    ),
    "a stranger": (
        {"a.weight": torch.ones(1), DOWN: random(RANK, COLUMNS)},
        f"1 of no weight: base_model.model.a.weight; base_model.model.{DOWN} without its lora_B",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_told_with_its_shapes(case: str, tmp_path: Path) -> None:
    tensors, found = MISFITS[case]
    base(tmp_path / "base")
    folder = adapter(tmp_path / "lora", tensors)
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder)
    assert caught.value.found == found
    assert ("fetch the whole" in str(caught.value.hint)) == (case in ("no A", "no B"))


@pytest.mark.parametrize(
    ("settings", "rank"),
    [({"rank_pattern": {"up_proj": 2}}, 2), ({"rank_pattern": {"down_proj": 2}}, RANK)],
)
def test_a_layer_may_have_a_rank_of_its_own(
    settings: dict[str, Any], rank: int, tmp_path: Path
) -> None:
    base(tmp_path / "base")
    folder = adapter(tmp_path / "lora", pair(rank=rank), **settings)
    assert AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder).names()


def test_settings_and_weights_of_two_runs_are_named(tmp_path: Path) -> None:
    base(tmp_path / "base")
    folder = adapter(tmp_path / "lora", pair(), r=8)
    with pytest.raises(CheckpointError) as caught:
        AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder)
    assert caught.value.where == f"{folder / 'adapter_config.json'}: r"
    assert caught.value.found == f"8; the matrices of {LAYER} have rank 4"


def test_modules_that_are_not_saved_are_named(tmp_path: Path) -> None:
    """PEFT names both heads that a classifier may have; models have one of them."""
    base(tmp_path / "base")
    both = {"modules_to_save": ["norm", "score", "classifier"]}
    folder = adapter(tmp_path / "lora", pair(), **both)
    with pytest.raises(CheckpointError) as caught:
        AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder)
    assert caught.value.where == f"{folder / 'adapter_config.json'}: modules_to_save"
    assert caught.value.found == "norm; adapter_model.safetensors has no model.norm.weight"
    whole = pair() | {"model.norm.weight": torch.ones(COLUMNS)}
    adapter(tmp_path / "lora", whole, **both)
    assert AdaptedCheckpoint(SafetensorsCheckpoint(tmp_path / "base"), folder).names()


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (None, "does not exist"),
        ("adapter_model.safetensors", "cannot be read"),
        ("adapter_config.json", "has no weights"),
        ("adapter_model.bin", "pickled"),
        ("[]", "not an object"),
    ],
)
def test_folders_that_are_no_adapter(left: str | None, message: str, tmp_path: Path) -> None:
    model = saved("LlamaForCausalLM", llama(), tmp_path / "base")
    folder = tmp_path / "lora"
    if left is not None:
        whole = adapter(folder, pair())
        (whole / "adapter_model.bin").write_bytes(b"")
        if left == "[]":
            (whole / "adapter_config.json").write_text("[]")
        kept = {left, "adapter_config.json"} if left == "adapter_model.bin" else {left}
        for file in folder.iterdir():
            if left != "[]" and file.name not in kept:
                file.unlink()
    with pytest.raises(SourceError, match=message):
        resolve(str(model), tmp_path, adapter=str(folder))
