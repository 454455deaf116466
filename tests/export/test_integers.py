"""Which integers hold what a checkpoint has quantized."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType as Kind

from lepton_compile.export.checkpoint import GGUFCheckpoint
from lepton_compile.export.checkpoint.gguf_header import read_header
from lepton_compile.export.checkpoint.integers import EIGHT_BITS, Integers, four_bits, widest
from lepton_compile.export.checkpoint.quantized import read_quantized
from tests.export import gguf_files
from tests.export.packers import pack
from tests.export.test_quantized import LAYER, written

FOUR = Integers(4, 32)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (32, FOUR),
        (64, Integers(4, 64)),
        (128, Integers(4, 128)),
        (96, FOUR),
        (640, Integers(4, 128)),
        (16, EIGHT_BITS),
        (48, EIGHT_BITS),
    ],
)
def test_groups_that_kernels_have(columns: int, found: Integers) -> None:
    assert four_bits(columns) == found


def test_what_holds_several() -> None:
    assert widest([FOUR, FOUR]) == FOUR
    assert widest([FOUR, Integers(4, 64)]) == EIGHT_BITS
    assert widest([FOUR, None]) == EIGHT_BITS
    assert widest([None, None]) is None


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ("awq", FOUR),
        ("gptq", FOUR),
        ("gptq out of order", FOUR),
        ("gptq of 8 bits", EIGHT_BITS),
        ("int4 in groups", FOUR),
        ("int4 with zero points", FOUR),
        ("nvfp4", EIGHT_BITS),
        ("fp8", EIGHT_BITS),
    ],
)
def test_of_folders(form: str, found: Integers, tmp_path: Path) -> None:
    tensors, _, config = pack(form)
    checkpoint = read_quantized(written(tmp_path, tensors), config)
    assert checkpoint.names()[f"{LAYER}.weight"].integers == found


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("Q4_0", FOUR),
        ("Q4_1", Integers(4, 32, own=True)),
        ("Q5_1", EIGHT_BITS),
        ("Q8_0", EIGHT_BITS),
        ("F16", None),
    ],
)
def test_of_gguf_types(kind: str, found: Integers | None, tmp_path: Path) -> None:
    model = gguf_files.tiny_model("qwen3moe")
    path = gguf_files.write(tmp_path / "m.gguf", "qwen3moe", model, Kind[kind])
    infos = GGUFCheckpoint(read_header(path)).names()
    for name in ("self_attn.q_proj.weight", "mlp.experts.gate_up_proj"):
        assert infos[f"model.layers.1.{name}"].integers == found
    assert infos["model.norm.weight"].integers is None


def test_halves_of_two_types_and_matrices_that_are_turned(tmp_path: Path) -> None:
    others = {"ffn_up_exps": Kind.Q8_0}
    model = gguf_files.tiny_model("qwen3moe")
    path = gguf_files.write(tmp_path / "m.gguf", "qwen3moe", model, Kind.Q4_0, others=others)
    infos = GGUFCheckpoint(read_header(path)).names()
    assert infos["model.layers.0.mlp.experts.gate_up_proj"].integers == EIGHT_BITS
    assert infos["model.layers.0.mlp.experts.down_proj"].integers == FOUR
    model = gguf_files.tiny_model("gpt2")
    path = gguf_files.write(tmp_path / "n.gguf", "gpt2", model, Kind.Q4_0)
    infos = GGUFCheckpoint(read_header(path)).names()
    assert infos["transformer.h.0.mlp.c_fc.weight"].integers == EIGHT_BITS
