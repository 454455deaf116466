"""Checkpoints whose weights are quantized already: values, parts of them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import save_file

from lepton_compile.errors import CheckpointError, LeptonError, SourceError
from lepton_compile.export.checkpoint import SafetensorsCheckpoint
from lepton_compile.export.checkpoint.adapted import AdaptedCheckpoint
from lepton_compile.export.checkpoint.integers import EIGHT_BITS, Integers
from lepton_compile.export.checkpoint.merged import MergedCheckpoint
from lepton_compile.export.checkpoint.quantized import read_quantized
from lepton_compile.export.checkpoint.split import SplitCheckpoint
from lepton_passes.grouped import Grid, grouped

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


@pytest.mark.parametrize(
    ("form", "bits"),
    [
        ("awq", 4),
        ("gptq with zero points", 4),
        ("gptq", 4),
        ("gptq_v2", 4),
        ("gptq of 8 bits", 8),
        ("gptq out of order", 4),
        ("int4 with zero points", 4),
    ],
)
def test_integers_are_those_that_were_stored(form: str, bits: int, tmp_path: Path) -> None:
    tensors, values, config = pack(form)
    source = grouped(read_quantized(written(tmp_path, tensors), config).tensor(f"{LAYER}.weight"))
    grid = source.grid() if source is not None else None
    assert isinstance(grid, Grid)
    assert (grid.bits, grid.group) == (bits, 32)
    assert grid.codes.dtype == (ir.DataType.UINT4 if bits == 4 else ir.DataType.UINT8)
    codes, zeros = (t.numpy().astype(np.int32) for t in (grid.codes, grid.zero_points()))
    np.testing.assert_array_equal(zeros, grid.shifts.numpy())
    assert grid.reach == (zeros.min(), zeros.max())
    parts = codes.reshape(*zeros.shape, 32) - zeros[..., None]
    found = (parts * grid.scales.numpy()[..., None]).reshape(codes.shape)
    wanted = values.numpy() if grid.order is None else values.numpy()[:, grid.order]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    assert (grid.order is not None) == (form == "gptq out of order")
    stored = tensors["scales"].float().T if "scales" in tensors else tensors["weight_scale"]
    np.testing.assert_array_equal(grid.scales.numpy(), stored.numpy())
    np.testing.assert_array_equal(grid.codes.rows(5, 9).astype(np.int32), codes[5:9])


@pytest.mark.parametrize("form", ["fp8 in blocks", "int4 in groups", "int8 packed", "nvfp4"])
def test_what_has_no_zero_points_has_no_integers_to_keep(form: str, tmp_path: Path) -> None:
    tensors, _, config = pack(form)
    found = read_quantized(written(tmp_path, tensors), config)
    assert grouped(found.tensor(f"{LAYER}.weight")) is None


def test_groups_of_different_sizes_say_so(tmp_path: Path) -> None:
    tensors, _, config = pack("gptq out of order")
    tensors["g_idx"][:] = torch.arange(len(tensors["g_idx"])) // 40
    source = grouped(read_quantized(written(tmp_path, tensors), config).tensor(f"{LAYER}.weight"))
    assert source is not None
    assert source.grid() == "its groups have different numbers of columns"


def test_packed_integers_out_of_order_have_the_middle_for_a_zero_point(tmp_path: Path) -> None:
    tensors, _, config = pack("int4 in groups")
    order = torch.arange(64) % 2
    checkpoint = written(tmp_path, {**tensors, "weight_g_idx": order.int()})
    tensor = read_quantized(checkpoint, config).tensor(f"{LAYER}.weight")
    source = grouped(tensor)
    grid = source.grid() if source is not None else None
    assert isinstance(grid, Grid)
    assert grid.signed
    np.testing.assert_array_equal(grid.order, np.argsort(order.numpy(), kind="stable"))
    whole = grid.integers().numpy().astype(np.float32).reshape(-1, 2, 32)
    wanted = np.empty_like(tensor.numpy())
    wanted[:, grid.order] = (whole * grid.scales.numpy()[..., None]).reshape(wanted.shape)
    np.testing.assert_allclose(tensor.numpy(), wanted, rtol=1e-6, atol=1e-7)


def test_what_changes_a_weight_says_so(tmp_path: Path) -> None:
    tensors, values, config = pack("awq")
    stored, name = read_quantized(written(tmp_path, tensors), config), f"{LAYER}.weight"
    lora = {"lora_A": torch.ones(2, values.shape[1]), "lora_B": torch.ones(values.shape[0], 2)}
    (folder := tmp_path / "lora").mkdir()
    named = {f"base_model.model.{LAYER}.{part}.weight": each for part, each in lora.items()}
    save_file(named, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    made = AdaptedCheckpoint(stored, folder)
    source = grouped(made.tensor(name))
    assert source is not None
    assert source.grid() == "an adapter is merged into it"
    np.testing.assert_array_equal(source.rows(2, 3), made.tensor(name).numpy()[2:3])
    assert (stored.names()[name].integers, made.names()[name].integers) == (
        Integers(4, 32),
        EIGHT_BITS,
    )


def test_parts_have_their_integers(tmp_path: Path) -> None:
    tensors, _, config = pack("awq")
    stored, name = read_quantized(written(tmp_path, tensors), config), f"{LAYER}.weight"
    half = stored.names()[name].shape[0] // 2
    parts = {name: {"first": half, "second": half}}
    apart = SplitCheckpoint(stored, lambda each: parts.get(each, {}))
    source, whole = grouped(apart.tensor("second")), grouped(stored.tensor(name))
    assert source is not None
    assert whole is not None
    grid, all_ = source.grid(), whole.grid()
    assert isinstance(grid, Grid)
    assert isinstance(all_, Grid)
    first = len(whole.numpy()) // 2
    np.testing.assert_array_equal(source.rows(2, 5), whole.rows(first + 2, first + 5))
    np.testing.assert_array_equal(grid.codes.rows(2, 5), all_.codes.rows(first + 2, first + 5))
    np.testing.assert_array_equal(grid.shifts.numpy(), all_.shifts.numpy()[first:])
    assert apart.names()["second"].integers == Integers(4, 32)


@pytest.mark.parametrize("stack", [True, False])
def test_weights_under_each_other_have_integers_like_their_parts(
    stack: bool, tmp_path: Path
) -> None:
    names = ["0.weight", "1.weight"]
    packed = [pack(form) for form in ("gptq", "gptq with zero points")]
    named = {
        f"{number}.{part}": tensor.contiguous()
        for number, (tensors, _, _) in enumerate(packed)
        for part, tensor in tensors.items()
    }
    save_file(named, tmp_path / "model.safetensors")
    stored = read_quantized(SafetensorsCheckpoint(tmp_path), packed[0][2])
    stacks, joined = ({"all": [names]}, {}) if stack else ({}, {"all": names})
    source = grouped(MergedCheckpoint(stored, stacks, joined).tensor("all"))
    grid = source.grid() if source is not None else None
    assert isinstance(grid, Grid)
    parts = [grouped(stored.tensor(name)) for name in names]
    grids = [part.grid() for part in parts if part is not None]
    assert len(grids) == 2
    for part in ("codes", "shifts", "scales"):
        wanted = np.concatenate([getattr(each, part).numpy() for each in grids])
        np.testing.assert_array_equal(getattr(grid, part).numpy(), wanted)


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
