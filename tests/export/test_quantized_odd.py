"""Quantized checkpoints that contradict themselves: no engine is made of what they do not say."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lepton_compile.errors import CheckpointError, SourceError
from lepton_compile.export.checkpoint.quantized import read_quantized
from lepton_compile.export.source import resolve
from lepton_passes.grouped import grouped

from .packers import Tensors, pack, weight
from .test_quantized import LAYER, written

ASYMMETRIC, SYMMETRIC = "int4 with zero points", "int4 in groups"


def put(part: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({part: value(tensors[part])})


def of(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.float().to(dtype)


def first(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.contiguous().clone()
        changed.view(-1)[0] = value
        return changed

    return change


def rows(count: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor[:count]


TENSORS: dict[str, tuple[str, Callable[[Tensors], Any], str]] = {
    "order of fractions": ("gptq", put("g_idx", of(torch.float32)), "float32"),
    "order of bits": ("gptq", put("g_idx", of(torch.bool)), "bool"),
    "words of bytes": ("gptq", put("qweight", of(torch.int8)), "INT8"),
    "words of fractions": ("awq", put("qweight", of(torch.float32)), "FLOAT"),
    "long words": ("awq", put("qzeros", of(torch.int64)), "INT64"),
    "whole scales": ("gptq", put("scales", of(torch.int32)), "INT32"),
    "scale that is none": ("gptq", put("scales", first(nan)), "nan"),
    "scale without end": ("awq", put("scales", first(inf)), "inf"),
    "scale below": ("fp8 in blocks", put("weight_scale_inv", first(-inf)), "-inf"),
    "exponent that is none": ("mxfp4", put("weight_scale", first(255)), "inf"),
    "scales of nothing": ("gptq", put("scales", torch.zeros_like), "all 0"),
    "scale of nothing": ("fbgemm_fp8", put("weight_scale", torch.zeros_like), "all 0"),
    "whole of no number": ("nvfp4", put("weight_global_scale", first(0)), "inf"),
    "whole of several": ("nvfp4", put("weight_global_scale", lambda t: t.repeat(2)), "2 numbers"),
    "codes without scales": (
        "fp8 in blocks",
        lambda tensors: tensors.pop("weight_scale_inv"),
        "without scales",
    ),
    "codes that are values": ("float8 by row", put("weight", of(torch.float32)), "FLOAT"),
    "shape of one number": (ASYMMETRIC, put("weight_shape", rows(1)), r"\[48\]"),
    "shape of none": (ASYMMETRIC, put("weight_shape", rows(0)), r"\[\]"),
    "shape of other rows": (ASYMMETRIC, put("weight_shape", first(47)), "47"),
    "one word": (ASYMMETRIC, put("weight_packed", lambda t: t[0, 0]), r"shape \(\)"),
    "words of four bytes": (ASYMMETRIC, put("weight_packed", of(torch.float32)), "FLOAT"),
    "fewer zero points": (ASYMMETRIC, put("weight_zero_point", rows(3)), r"\(3, 2\)"),
    "flat zero points": (ASYMMETRIC, put("weight_zero_point", torch.flatten), r"\(12,\)"),
    "zero points of bytes": (ASYMMETRIC, put("weight_zero_point", of(torch.int8)), "INT8"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_contradict_each_other(case: str, tmp_path: Path) -> None:
    form, change, message = TENSORS[case]
    tensors, _, config = pack(form)
    change(tensors)
    checkpoint = written(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_quantized(checkpoint, config).tensor(f"{LAYER}.weight").numpy()
    assert LAYER in str(caught.value.where)
    assert caught.value.hint


WEIGHTS = {"strategy": "group", "group_size": 32, "symmetric": False}


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        (SYMMETRIC, {}, "no weight_zero_point"),
        (ASYMMETRIC, {"group_size": 64}, "2 scales in a row of 64"),
    ],
)
def test_tensors_that_contradict_the_configuration(
    form: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tensors, _, config = pack(form)
    config["config_groups"] = {"group_0": {"weights": WEIGHTS | change}}
    with pytest.raises(CheckpointError, match=message):
        read_quantized(written(tmp_path, tensors), config)


def test_groups_that_differ_are_told_by_their_tensors(tmp_path: Path) -> None:
    tensors, values, config = pack(ASYMMETRIC)
    others = {"group_1": {"weights": WEIGHTS | {"group_size": 64, "symmetric": True}}}
    config["config_groups"] = {"group_0": {"weights": WEIGHTS}, **others}
    found = read_quantized(written(tmp_path, tensors), config).tensor(f"{LAYER}.weight")
    np.testing.assert_allclose(found.numpy(), values.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("form", ["gptq", "gptq with zero points", "awq", "int4 in groups"])
@pytest.mark.parametrize("sign", [0, -1])
def test_scales_of_nothing_and_below_are_computed_with(
    form: str, sign: int, tmp_path: Path
) -> None:
    """Numbers too small for their type are stored so, and what other formats have as signs."""
    tensors, values, config = pack(form)
    part = "scales" if "scales" in tensors else "weight_scale"
    scales = tensors[part].float()
    where = (slice(1, 2), slice(0, 1)) if part == "scales" else (slice(0, 1), slice(1, 2))
    scales[where] *= sign
    tensors[part] = scales.to(tensors[part].dtype)
    group = values.shape[1] // (scales.shape[0] if part == "scales" else scales.shape[1])
    values[0, group : 2 * group] *= sign
    found = read_quantized(written(tmp_path, tensors), config).tensor(f"{LAYER}.weight")
    np.testing.assert_allclose(found.numpy(), values.numpy(), rtol=1e-6, atol=1e-7)


def test_an_order_that_was_never_filled_in(tmp_path: Path) -> None:
    """Zeros alone would leave all groups but the first without a column."""
    tensors, values, config = pack("gptq with zero points")
    tensors["g_idx"].zero_()
    found = read_quantized(written(tmp_path, tensors), config).tensor(f"{LAYER}.weight")
    np.testing.assert_allclose(found.numpy(), values.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("order", ["g_idx", "zeros", "none"])
def test_a_last_group_that_is_not_full(order: str, tmp_path: Path) -> None:
    tensors, values, config = pack("gptq", weight(columns=80))  # of 32, 32 and 16
    if order == "zeros":
        tensors["g_idx"].zero_()
    if order == "none":
        del tensors["g_idx"]
    stored = written(tmp_path, tensors)
    found = read_quantized(stored, config | {"group_size": 32}).tensor(f"{LAYER}.weight")
    np.testing.assert_allclose(found.numpy(), values.numpy(), rtol=1e-6, atol=1e-7)
    source = grouped(found)
    assert source is not None
    assert source.grid() == "its last group is not full"
    # Who says nothing of groups, or that all have one size, is not believed.
    for said in ({}, {"group_size": 128}):
        with pytest.raises(CheckpointError, match="do not fit"):
            read_quantized(stored, config | said)


def test_two_groups_of_which_the_last_is_shorter(tmp_path: Path) -> None:
    """As many columns as two equal groups have, which they were taken for."""
    tensors, values, config = pack("gptq", torch.cat([weight(columns=32), weight(columns=16)], 1))
    del tensors["g_idx"]
    found = read_quantized(written(tmp_path, tensors), config | {"group_size": 32})
    read = found.tensor(f"{LAYER}.weight").numpy()
    np.testing.assert_allclose(read, values.numpy(), rtol=1e-6, atol=1e-7)


def test_a_layer_with_groups_of_its_own(tmp_path: Path) -> None:
    """As GPTQModel's `dynamic` has them."""
    tensors, values, config = pack("gptq")
    found = read_quantized(written(tmp_path, tensors), config | {"group_size": 128})
    read = found.tensor(f"{LAYER}.weight").numpy()
    np.testing.assert_allclose(read, values.numpy(), rtol=1e-6, atol=1e-7)


def test_activations_that_awq_scales(tmp_path: Path) -> None:
    tensors, _, config = pack("awq")
    checkpoint = written(tmp_path, {**tensors, "act.scales": torch.ones(48)})
    with pytest.raises(SourceError, match="scales of an activation") as caught:
        read_quantized(checkpoint, config)
    assert caught.value.found == f"{LAYER}.act.scales"


def rotated(location: str) -> dict[str, Any]:
    apply = [{"targets": ["Linear"], "location": location}]
    return {"config_groups": {"v": {"type": "hadamard", "apply": apply}}}


@pytest.mark.parametrize("found", [rotated("input"), rotated("q_attn"), "hadamard", [1]], ids=str)
def test_rotations_that_the_model_computes(found: Any, tmp_path: Path) -> None:
    tensors, _, config = pack(ASYMMETRIC)
    with pytest.raises(SourceError, match="transform_config"):
        read_quantized(written(tmp_path, tensors), {**config, "transform_config": found})


@pytest.mark.parametrize("found", [None, {}, {"config_groups": {}}, rotated("weight_input")])
def test_rotations_of_weights_are_part_of_them(found: Any, tmp_path: Path) -> None:
    tensors, _, config = pack(ASYMMETRIC)
    read_quantized(written(tmp_path, tensors), {**config, "transform_config": found})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "gptq", "bits": "4"}, "number of bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": "32"}, "group_size"),
        ({"quant_method": "gptq", "bits": 4, "format": "marlin"}, "checkpoint_format"),
        ({"quant_method": "awq", "bits": 10**40}, "number of bits"),
        ({"quant_method": "awq", "bits": 4, "version": ["gemm"]}, "version"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "size of a block"),
        ({"quant_method": "modelopt"}, "quant_algo"),
        ({"quant_method": "compressed-tensors", "format": {"a": 1}}, "format"),
        ({"quant_method": "compressed-tensors", "transform_config": 1}, "transform_config"),
        ({"quant_method": "bitsandbytes"}, "quant_method"),
    ],
    ids=str,
)
def test_settings_are_looked_at_before_any_weight(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """So that a plan, which reads none, says what a build would say, and in which file."""
    config = {"model_type": "llama", "quantization_config": settings}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=message) as caught:
        resolve(str(tmp_path), tmp_path, weights=False)
    assert caught.value.where == f"{tmp_path / 'config.json'}: quantization_config"


def test_settings_in_a_file_of_their_own_are_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    file = tmp_path / "hf_quant_config.json"
    file.write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": {}}))
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(SourceError, match="quant_algo") as caught:
        resolve(str(tmp_path), tmp_path)
    assert caught.value.where == str(file)
