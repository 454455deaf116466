"""Safetensors read row by row: single files, shards, every element type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint import SafetensorsCheckpoint
from lepton_compile.export.checkpoint.safetensors import read_header

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def single(folder: Path, **tensors: torch.Tensor) -> SafetensorsCheckpoint:
    save_file(tensors, folder / "model.safetensors")
    return SafetensorsCheckpoint(folder)


def sharded(folder: Path, parts: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    weight_map = {}
    for number, part in enumerate(parts):
        name = f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
        save_file(part, folder / name)
        weight_map.update(dict.fromkeys(part, name))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_element_type_reads_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = torch.arange(48, dtype=torch.uint8).reshape(6, 8)
    stored = bits.bool() if dtype == torch.bool else bits.view(dtype)
    tensor = single(tmp_path, w=stored).tensor("w")
    assert tensor.shape.numpy() == tuple(stored.shape)
    assert tensor.numpy().tobytes() == stored.view(torch.uint8).numpy().tobytes()
    assert tensor.tobytes() == stored.view(torch.uint8).numpy().tobytes()


def test_bfloat16_is_a_numpy_type_of_ml_dtypes(tmp_path: Path) -> None:
    stored = torch.randn(3, 5).bfloat16()
    rows = single(tmp_path, w=stored).tensor("w").rows(1, 3)
    assert rows.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(rows.astype(np.float32), stored[1:].float().numpy())


def test_scalars_and_vectors(tmp_path: Path) -> None:
    checkpoint = single(tmp_path, s=torch.tensor(2.5), v=torch.arange(4.0), e=torch.zeros(0, 3))
    assert checkpoint.tensor("s").numpy() == np.float32(2.5)
    np.testing.assert_array_equal(checkpoint.tensor("v").rows(1, 3), [1, 2])
    assert checkpoint.tensor("e").numpy().shape == (0, 3)


def test_a_location_points_at_the_bytes(tmp_path: Path) -> None:
    stored = torch.randn(4, 4)
    location = single(tmp_path, a=torch.randn(3), w=stored).names()["w"].location
    assert location is not None
    data = location.file.read_bytes()[location.offset :][: location.length]
    assert data == stored.numpy().tobytes()


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    a, b = torch.randn(4, 2), torch.randn(2)
    sharded(tmp_path, [{"a": a}, {"b": b}])
    checkpoint = SafetensorsCheckpoint(tmp_path)
    assert [file.name for file in checkpoint.files()] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    np.testing.assert_array_equal(checkpoint.tensor("a").numpy(), a.numpy())
    np.testing.assert_array_equal(checkpoint.tensor("b").numpy(), b.numpy())


def test_shards_may_be_links_as_in_the_hub_cache(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    folder.mkdir()
    blobs.mkdir()
    sharded(folder, [{"a": torch.ones(2)}])
    shard = folder / "model-00001-of-00001.safetensors"
    shard.rename(blobs / "0123")
    shard.symlink_to(blobs / "0123")
    assert SafetensorsCheckpoint(folder).tensor("a").numpy().tolist() == [1, 1]


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such tensor"):
        single(tmp_path, a=torch.ones(2)).tensor("b")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1),
        st.lists(st.integers(0, 4), max_size=3),
        max_size=5,
    )
)
def test_header_says_what_was_saved(shapes: dict[str, list[int]], tmp_path: Path) -> None:
    shapes.pop("__metadata__", None)
    stored = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    infos = read_header(tmp_path / "model.safetensors")
    assert {name: info.shape for name, info in infos.items()} == {
        name: tuple(tensor.shape) for name, tensor in stored.items()
    }
    assert all(info.dtype == ir.DataType.FLOAT for info in infos.values())
    checkpoint = SafetensorsCheckpoint(tmp_path)
    for name, tensor in stored.items():
        np.testing.assert_array_equal(checkpoint.tensor(name).numpy(), tensor.numpy())
