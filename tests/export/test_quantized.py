"""Checkpoints whose weights are quantized already: values, parts of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lepton_compile.errors import CheckpointError, LeptonError, SourceError
from lepton_compile.export.checkpoint import SafetensorsCheckpoint
from lepton_compile.export.checkpoint.quantized import read_quantized

from .packers import PACKERS, Tensors, pack

LAYER = "model.layers.0.mlp.up_proj"
# The library that packs these unpacks them in bf16; ours is in fp32.
IN_BF16 = {"modelopt NVFP4", "nvfp4", "mxfp4"}


def written(folder: Path, tensors: Tensors, layer: str = LAYER) -> SafetensorsCheckpoint:
    named = {f"{layer}.{part}": tensor.contiguous() for part, tensor in tensors.items()}
    save_file({**named, "model.norm.weight": torch.ones(4)}, folder / "model.safetensors")
    return SafetensorsCheckpoint(folder)


@pytest.mark.parametrize("form", PACKERS)
def test_values_are_those_that_were_stored(form: str, tmp_path: Path) -> None:
    tensors, values, config = pack(form)
    found = read_quantized(written(tmp_path, tensors), config)
    assert set(found.names()) == {f"{LAYER}.weight", "model.norm.weight"}
    assert found.names()[f"{LAYER}.weight"].shape == tuple(values.shape)
    tensor = found.tensor(f"{LAYER}.weight")
    error = 2**-8 if form in IN_BF16 else 1e-6
    np.testing.assert_allclose(tensor.numpy(), values.numpy(), rtol=error, atol=1e-7)
    np.testing.assert_array_equal(tensor.rows(5, 30), tensor.numpy()[5:30])
    assert tensor.rows(5, 5).shape == (0, values.shape[1])
    np.testing.assert_array_equal(found.tensor("model.norm.weight").numpy(), np.ones(4))


@pytest.mark.parametrize("order", [torch.arange(64) // 32, torch.full((64,), -1)])
def test_columns_that_name_their_groups(order: torch.Tensor, tmp_path: Path) -> None:
    tensors, values, config = pack("int4 with zero points")
    checkpoint = written(tmp_path, {**tensors, "weight_g_idx": order.int()})
    found = read_quantized(checkpoint, config).tensor(f"{LAYER}.weight").numpy()
    np.testing.assert_allclose(found, values.numpy(), rtol=1e-6, atol=1e-7)


def test_experts_of_four_bits(tmp_path: Path) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    made = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (3, 24, 2, 16), dtype=torch.uint8, generator=made)
    scales = torch.randint(110, 135, (3, 24, 2), dtype=torch.uint8, generator=made)
    checkpoint = written(
        tmp_path, {"gate_up_proj_blocks": blocks, "gate_up_proj_scales": scales}, "experts"
    )
    found = read_quantized(checkpoint, {"quant_method": "mxfp4"}).tensor("experts.gate_up_proj")
    wanted = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())
    np.testing.assert_array_equal(found.rows(1, 3), wanted[1:3].numpy())


def test_stacks_of_floats_of_eight_bits(tmp_path: Path) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    made = torch.Generator().manual_seed(0)
    codes = torch.randn(3, 24, 32, generator=made).to(torch.float8_e4m3fn)
    scales = torch.rand(3, 3, 2, generator=made)
    parts = {"gate_up_proj": codes, "gate_up_proj_scale_inv": scales}
    config = {"quant_method": "fp8", "weight_block_size": [8, 16]}
    found = read_quantized(written(tmp_path, parts, "experts"), config)
    tensor = found.tensor("experts.gate_up_proj")
    wanted = Fp8Dequantize(None)._dequantize_one(codes, scales, torch.float32).numpy()
    assert found.names()["experts.gate_up_proj"].shape == (3, 24, 32)
    np.testing.assert_array_equal(tensor.numpy(), wanted)
    np.testing.assert_array_equal(tensor.rows(1, 2), wanted[1:2])


def without(part: str) -> Callable[[Tensors, dict[str, Any]], None]:
    return lambda tensors, config: tensors.pop(part)  # type: ignore[func-returns-value]


def said(**changes: Any) -> Callable[[Tensors, dict[str, Any]], None]:
    return lambda tensors, config: config.update(changes)


def cut(part: str, rows: int) -> Callable[[Tensors, dict[str, Any]], None]:
    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        tensors[part] = tensors[part][:rows]

    return change


def filled(part: str, value: int) -> Callable[[Tensors, dict[str, Any]], None]:
    return lambda tensors, config: tensors.update({part: torch.full_like(tensors[part], value)})


WRONG: dict[str, tuple[str, Callable[[Tensors, dict[str, Any]], None], type[LeptonError], str]] = {
    "method": ("gptq", said(quant_method="bitsandbytes"), SourceError, "quant_method"),
    "method that is a list": ("gptq", said(quant_method=[1]), SourceError, "quant_method"),
    "bits": ("gptq", said(bits=3), SourceError, "number of bits"),
    "bits of awq": ("awq", said(bits=8), SourceError, "number of bits"),
    "layout": ("gptq", said(checkpoint_format="marlin"), SourceError, "checkpoint_format"),
    "layout that is a list": (
        "gptq",
        said(checkpoint_format=["gptq"]),
        SourceError,
        "checkpoint_format",
    ),
    "producer that is a name": (
        "modelopt FP8",
        said(producer="modelopt"),
        SourceError,
        "quant_method",
    ),
    "layout of awq": ("awq", said(version="gemv"), SourceError, "version"),
    "algorithm": ("modelopt NVFP4", said(quant_algo="W4A16_AWQ"), SourceError, "quant_algo"),
    "format": ("int4 in groups", said(format="marlin-24"), SourceError, "format"),
    "sparse": (
        "int4 in groups",
        said(sparsity_config={"format": "sparse-bitmask"}),
        SourceError,
        "sparsity_config",
    ),
    "block": ("fp8 in blocks", said(weight_block_size=[0, 3]), SourceError, "size of a block"),
    "blocks of another size": (
        "fp8 in blocks",
        said(weight_block_size=[48, 48]),
        CheckpointError,
        "do not fit",
    ),
    "fewer scales": ("fbgemm_fp8", cut("weight_scale", 5), CheckpointError, "do not fit"),
    "no zero points": ("gptq", without("qzeros"), CheckpointError, "do not fit"),
    "no scales": ("awq", without("scales"), CheckpointError, "do not fit"),
    "columns without a group": ("gptq", filled("g_idx", 7), CheckpointError, "do not fit"),
    "columns of another number": ("gptq", cut("g_idx", 7), CheckpointError, "do not fit"),
    "no shape": ("int4 in groups", without("weight_shape"), SourceError, "without a shape"),
    "columns of no group": (
        "int4 in groups",
        lambda tensors, config: tensors.update(weight_g_idx=torch.full((64,), 9)),
        CheckpointError,
        "do not fit",
    ),
    "shape of nothing": ("int4 in groups", filled("weight_shape", 0), SourceError, "bits"),
    "shape of too much": ("int4 in groups", filled("weight_shape", 900), SourceError, "bits"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_read(case: str, tmp_path: Path) -> None:
    form, change, error, message = WRONG[case]
    tensors, _, config = pack(form)
    change(tensors, config)
    checkpoint = written(tmp_path, tensors)
    with pytest.raises(error, match=message) as caught:
        read_quantized(checkpoint, config).tensor(f"{LAYER}.weight").numpy()
    assert caught.value.found


def test_scales_alone_stay_for_the_binding_to_name(tmp_path: Path) -> None:
    tensors, _, config = pack("fp8 in blocks")
    del tensors["weight"]
    found = read_quantized(written(tmp_path, tensors), config)
    assert f"{LAYER}.weight_scale_inv" in found.names()
