"""Integers of 4 bits that a GGUF file has, with their scales and offsets."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_compile.export.checkpoint import GGUFCheckpoint
from lepton_compile.export.checkpoint.gguf_blocks import GRIDS, GROUP, grid_of
from lepton_compile.export.checkpoint.gguf_header import GGUFTensor, read_header
from lepton_passes.grouped import Grid, grouped
from lepton_passes.stacks import Turned, flattened, transposed_each
from lepton_passes.tensors import StreamedTensor
from tests.export import gguf_files


def values_of(grid: Grid) -> np.ndarray:
    """What the integers stand for."""
    values = grid.codes.numpy().astype(np.float32)
    values *= np.repeat(grid.scales.numpy(), GROUP, axis=1)
    if grid.shifts is None:
        assert grid.form == "floats"
        return values
    assert grid.form == "offsets"
    return np.asarray(values + np.repeat(grid.shifts.numpy(), GROUP, axis=1))


def stored(tensor: StreamedTensor) -> Grid:
    source = grouped(tensor)
    assert source is not None
    grid = source.grid()
    assert isinstance(grid, Grid), grid
    return grid


def blocks(kind: int, rows: int, count: int, seed: int) -> np.ndarray:
    """Random bytes whose scales and offsets are numbers of a usual size."""
    draw = np.random.default_rng(seed)
    data = draw.integers(0, 256, (rows * count, GRIDS[kind][0]), dtype=np.uint8)
    if Kind(kind) == Kind.MXFP4:
        data[:, 0] = draw.integers(100, 130, len(data))
    else:
        data[:, :4] = draw.normal(0, 0.01, (len(data), 2)).astype(np.float16).view(np.uint8)
    return data.reshape(rows, -1)


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(sorted(GRIDS)),
    rows=st.integers(1, 9),
    count=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_they_stand_for_what_gguf_dequantizes(
    kind: int, rows: int, count: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = blocks(kind, rows, count, seed)
    path = tmp_path_factory.mktemp("m") / "m.bin"
    path.write_bytes(b"head" + data.tobytes())
    wanted = gguf.dequantize(data, Kind(kind))
    tensor = GGUFTensor("w", wanted.shape, kind, 4, data.size)
    grid = grid_of(path, tensor, wanted.shape)
    # The same products and sums, in the same order.
    np.testing.assert_array_equal(values_of(grid), wanted)
    low, high = rows // 3, rows
    np.testing.assert_array_equal(grid.codes.rows(low, high), grid.codes.numpy()[low:high])
    np.testing.assert_array_equal(grid.scales.rows(low, high), grid.scales.numpy()[low:high])


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "qwen3moe", "mixtral"])
def test_rows_are_those_of_the_model(architecture: str, tmp_path: Path) -> None:
    """Also where the converter put them in another order, and where experts are stacks."""
    model = gguf_files.tiny_model(architecture)
    path = gguf_files.write(tmp_path / "m.gguf", architecture, model, Kind.Q4_1)
    checkpoint, found = GGUFCheckpoint(read_header(path)), 0
    for name in checkpoint.names():
        tensor = checkpoint.tensor(name)
        if grouped(tensor) is not None:
            values = flattened(tensor) if len(tensor.shape) == 3 else tensor
            np.testing.assert_array_equal(values_of(stored(tensor)), values.numpy(), err_msg=name)
            found += 1
    layers = [name for name in checkpoint.names() if name.endswith("_proj.weight")]
    assert found > len(layers) > 0


def test_a_matrix_that_lies_the_other_way_round_says_so(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "gpt2", gguf_files.tiny_model("gpt2"), Kind.Q4_1)
    tensor = GGUFCheckpoint(read_header(path)).tensor("transformer.h.0.attn.c_attn.weight")
    source = grouped(tensor)
    assert source is not None
    assert source.grid() == "it lies the other way round"


@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.MXFP4])
def test_experts_that_lie_the_other_way_round_are_read_as_they_are_stored(
    kind: Kind, tmp_path: Path
) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "gpt-oss", gguf_files.tiny_model("gpt-oss"), kind)
    tensor = GGUFCheckpoint(read_header(path)).tensor("model.layers.0.mlp.experts.gate_up_proj")
    assert isinstance(tensor, Turned)
    again = transposed_each(tensor)
    np.testing.assert_array_equal(values_of(stored(again)), again.numpy())
    count, columns, rows = tensor.shape.numpy()
    turned = np.swapaxes(again.numpy().reshape(count, rows, columns), 1, 2)
    np.testing.assert_array_equal(tensor.numpy(), turned)
    np.testing.assert_array_equal(tensor.rows(1, 3), turned[1:3])


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", "F16"])
def test_other_types_have_none(kind: str, tmp_path: Path) -> None:
    path = gguf_files.write(
        tmp_path / "m.gguf", "qwen2", gguf_files.tiny_model("qwen2"), Kind[kind]
    )
    checkpoint = GGUFCheckpoint(read_header(path))
    assert all(grouped(checkpoint.tensor(name)) is None for name in checkpoint.names())
