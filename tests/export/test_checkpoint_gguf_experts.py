"""Stacks of experts in GGUF files, which the model has in another form."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import onnx_ir as ir
import pytest
from gguf import GGMLQuantizationType as Kind

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint import GGUFCheckpoint
from lepton_compile.export.checkpoint.gguf_header import read_header
from lepton_passes.stacks import flattened
from tests.export import gguf_files

MLP = "model.layers.1.mlp"


def dequantized(stack: np.ndarray, kind: Kind) -> np.ndarray:
    return np.asarray(gguf.dequantize(gguf.quantize(np.ascontiguousarray(stack), kind), kind))


def test_mxfp4_of_gpt_oss(tmp_path: Path) -> None:
    model = gguf_files.tiny_model("gpt-oss")
    path = gguf_files.write(tmp_path / "m.gguf", "gpt-oss", model, Kind.MXFP4)
    checkpoint, state = GGUFCheckpoint(read_header(path)), model.state_dict()
    for part in ("gate_up_proj", "down_proj"):
        tensor = checkpoint.tensor(f"{MLP}.experts.{part}")
        by_rows = state[f"{MLP}.experts.{part}"].numpy().swapaxes(1, 2)
        expected = dequantized(by_rows, Kind.MXFP4).swapaxes(1, 2)
        np.testing.assert_array_equal(tensor.numpy(), expected)
        np.testing.assert_array_equal(tensor.rows(1, 3), expected[1:3])
    bias = checkpoint.tensor(f"{MLP}.experts.gate_up_proj_bias").numpy()
    np.testing.assert_array_equal(bias, state[f"{MLP}.experts.gate_up_proj_bias"].numpy())


def test_a_stack_is_read_by_rows_of_its_matrices(tmp_path: Path) -> None:
    model = gguf_files.tiny_model("qwen3moe")
    path = gguf_files.write(tmp_path / "m.gguf", "qwen3moe", model, Kind.Q8_0)
    stack = GGUFCheckpoint(read_header(path)).tensor(f"{MLP}.experts.gate_up_proj")
    expected = dequantized(model.state_dict()[f"{MLP}.experts.gate_up_proj"].numpy(), Kind.Q8_0)
    np.testing.assert_array_equal(stack.numpy(), expected)
    flat, rows = flattened(stack), expected.reshape(-1, expected.shape[-1])
    # One row, a half, over the edges of halves and of matrices, none.
    for start, stop in [(0, 1), (0, 32), (30, 40), (60, 70), (20, 200), (7, 7)]:
        np.testing.assert_array_equal(flat.rows(start, stop), rows[start:stop])


def test_gate_and_up_of_different_types_are_float32(tmp_path: Path) -> None:
    """Tools that quantize a file may give each tensor a type of its own."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3moe")
    gate, up = np.random.default_rng(0).normal(size=(2, 3, 4, 32)).astype(np.float32)
    writer.add_tensor("blk.0.ffn_gate_exps.weight", gate.astype(np.float16))
    packed = gguf.quantize(up, Kind.Q8_0)
    writer.add_tensor("blk.0.ffn_up_exps.weight", packed, raw_dtype=Kind.Q8_0)
    checkpoint = GGUFCheckpoint(read_header(_written(writer, tmp_path)))
    tensor = checkpoint.tensor("model.layers.0.mlp.experts.gate_up_proj")
    assert tensor.dtype == ir.DataType.FLOAT
    assert checkpoint.names()["model.layers.0.mlp.experts.gate_up_proj"].shape == (3, 8, 32)
    expected = np.concatenate([gate.astype(np.float16), dequantized(up, Kind.Q8_0)], axis=1)
    np.testing.assert_array_equal(tensor.numpy(), expected)


def test_gate_and_up_that_are_one_already(tmp_path: Path) -> None:
    """Newer converters can leave them together."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3moe")
    both = np.random.default_rng(0).normal(size=(3, 8, 32)).astype(np.float32)
    writer.add_tensor("blk.0.ffn_gate_up_exps.weight", both)
    checkpoint = GGUFCheckpoint(read_header(_written(writer, tmp_path)))
    name = "model.layers.0.mlp.experts.gate_up_proj"
    np.testing.assert_array_equal(checkpoint.tensor(name).numpy(), both)
    assert checkpoint.names()[name].location is not None


def test_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3moe")
    writer.add_tensor("blk.0.ffn_up_exps.weight", np.ones((2, 2, 2), np.float32))
    path = _written(writer, tmp_path)
    with pytest.raises(CheckpointError, match="qwen3moe does not have") as caught:
        GGUFCheckpoint(read_header(path))
    assert caught.value.found == "1 unknown: blk.0.ffn_up_exps.weight"


def test_a_pair_of_two_sizes_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3moe")
    writer.add_tensor("blk.0.ffn_gate_exps.weight", np.ones((2, 3, 2), np.float32))
    writer.add_tensor("blk.0.ffn_up_exps.weight", np.ones((2, 2, 2), np.float32))
    path = _written(writer, tmp_path)
    with pytest.raises(CheckpointError, match="do not fit each other"):
        GGUFCheckpoint(read_header(path))


def _written(writer: gguf.GGUFWriter, folder: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "m.gguf"
