"""Weights as others store them quantized, with the values that they stand for.

Where the library that writes a format runs here, it packs; the rest is packed word by word, as the
format is described.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ["PACKERS", "Packed", "pack", "weight"]

Tensors = dict[str, torch.Tensor]
Packed = tuple[Tensors, torch.Tensor, dict[str, Any]]
"""Tensors by what follows the name of the layer, the values, and `quantization_config`."""

ROWS, COLUMNS, GROUP = 48, 64, 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
ONES = {4: 0x11111111, 8: 0x01010101}
"""What GPTQ takes off a word of zero points, by the bits of each."""


def weight(rows: int = ROWS, columns: int = COLUMNS) -> torch.Tensor:
    """A random weight."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.1


def pack(name: str, w: torch.Tensor | None = None) -> Packed:
    """A weight in one of the forms of ``PACKERS``."""
    return PACKERS[name](weight() if w is None else w)


def _fp8(block: tuple[int, int] | None) -> Callable[[torch.Tensor], Packed]:
    def packed(w: torch.Tensor) -> Packed:
        high, wide = block or w.shape
        grid = torch.empty(-(-w.shape[0] // high), -(-w.shape[1] // wide))
        for i, j in np.ndindex(*grid.shape):
            part = w[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
            grid[i, j] = part.abs().max() / 448
        spread = grid.repeat_interleave(high, 0).repeat_interleave(wide, 1)
        spread = spread[: w.shape[0], : w.shape[1]]
        codes = (w / spread).to(torch.float8_e4m3fn)
        config = {"quant_method": "fp8", "weight_block_size": list(block) if block else None}
        scale = grid if block else grid.reshape(())
        tensors = {"weight": codes, "weight_scale_inv": scale, "activation_scale": torch.ones(())}
        return tensors, codes.float() * spread, config

    return packed


def _fp8_by_powers(w: torch.Tensor) -> Packed:
    """As DeepSeek stores them since V3.1: scales that are exponents."""
    scale = torch.exp2(torch.ceil(torch.log2(w.abs().max() / 448))).reshape(1, 1)
    codes = (w / scale).to(torch.float8_e4m3fn)
    tensors = {"weight": codes, "weight_scale_inv": scale.to(torch.float8_e8m0fnu)}
    config = {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}
    return tensors, codes.float() * scale, config


def _fbgemm(w: torch.Tensor) -> Packed:
    scale = w.abs().amax(1, keepdim=True) / 448
    codes = (w / scale).to(torch.float8_e4m3fn)
    tensors = {"weight": codes, "weight_scale": scale, "input_scale_ub": torch.ones(1)}
    return tensors, codes.float() * scale, {"quant_method": "fbgemm_fp8"}


def _modelopt_fp8(w: torch.Tensor) -> Packed:
    scale = w.abs().max() / 448
    codes = (w / scale).to(torch.float8_e4m3fn)
    tensors = {"weight": codes, "weight_scale": scale, "input_scale": torch.ones(())}
    config = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
    return tensors, codes.float() * scale, config


def _modelopt_nvfp4(w: torch.Tensor) -> Packed:
    # That of compressed-tensors, whose scale of the whole is the inverse.
    tensors, values, _ = _compressed(16, type="float", num_bits=4, strategy="tensor_group")(w)
    tensors["weight"] = tensors.pop("weight_packed")
    tensors["weight_scale_2"] = 1 / tensors.pop("weight_global_scale").reshape(())
    config = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    return tensors, values, config


def _compressed(group: int | None = None, **args: Any) -> Callable[[torch.Tensor], Packed]:
    def packed(w: torch.Tensor) -> Packed:
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.compressors.format import infer_module_format
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
        from compressed_tensors.quantization.utils import calculate_qparams

        weights = QuantizationArgs(group_size=group, **args)
        scheme = QuantizationScheme(targets=["Linear"], weights=weights)
        layout = infer_module_format(torch.nn.Linear, scheme)
        state: Tensors = {"weight": w}
        low, high, whole = _ranges(w, weights, group)
        if whole is not None:
            state["weight_global_scale"] = whole
        scale, zero = calculate_qparams(low, high, weights, global_scale=whole)
        state |= {"weight_scale": scale, "weight_zero_point": zero}
        if weights.symmetric:
            del state["weight_zero_point"]
        compressor = BaseCompressor.get_value_from_registry(layout.value)
        stored = compressor.compress(state, scheme)
        values = compressor.decompress(dict(stored), scheme)["weight"].float()
        config = {
            "quant_method": "compressed-tensors",
            "format": layout.value,
            "config_groups": {"group_0": {"weights": {"block_structure": weights.block_structure}}},
        }
        return stored, values, config

    return packed


def _ranges(w: torch.Tensor, weights: Any, group: int | None) -> tuple[Any, Any, Any]:
    """Least and largest of what shares a scale, and the scale of the whole that NVFP4 has."""
    if weights.block_structure:
        high, wide = weights.block_structure
        parts = w.reshape(w.shape[0] // high, high, w.shape[1] // wide, wide)
        return parts.amin((1, 3)), parts.amax((1, 3)), None
    if weights.strategy == "tensor":
        return w.min().reshape(1), w.max().reshape(1), None
    parts = w.reshape(w.shape[0], -1, group or w.shape[1])
    whole = None
    if weights.strategy == "tensor_group":
        whole = (448 * 6 / w.abs().max()).reshape(1)
    return parts.amin(-1), parts.amax(-1), whole


def _gptq(
    bits: int = 4, *, version: str = "gptq", ordered: bool = False, zero: int | None = None
) -> Callable[[torch.Tensor], Packed]:
    def packed(w: torch.Tensor) -> Packed:
        rows, columns = w.shape
        group_of = torch.arange(columns) // GROUP
        if ordered:
            group_of = group_of[torch.randperm(columns, generator=torch.Generator().manual_seed(1))]
        groups = int(group_of.max()) + 1
        most, middle = 2**bits - 1, 2 ** (bits - 1) if zero is None else zero
        scale = torch.stack([w[:, group_of == g].abs().amax(1) for g in range(groups)]) * 2 / most
        scale = scale.half()
        zeros = torch.full((groups, rows), middle)
        zeros[:, ::3] -= 1  # not all alike
        codes = torch.round(w / scale.float()[group_of].T) + zeros[group_of].T
        codes = codes.clamp(0, most).int()
        values = (codes - zeros[group_of].T) * scale.float()[group_of].T
        less = 1 if version == "gptq" else 0
        tensors = {
            "qweight": _words(codes.T, bits, axis=0),
            "qzeros": _words(zeros, bits, axis=1) - less * ONES[bits],
            "scales": scale,
            "g_idx": group_of.int(),
        }
        config = {"quant_method": "gptq", "bits": bits, "checkpoint_format": version}
        return tensors, values, config

    return packed


def _asymmetric(w: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Codes and values (rows, columns), zero points and scales (rows, groups)."""
    parts = w.reshape(w.shape[0], -1, GROUP)
    low, high = parts.amin(-1), parts.amax(-1)
    scale = ((high - low) / 15).half().float()
    zeros = torch.round(-low / scale).clamp(0, 15)
    codes = (torch.round(parts / scale[..., None]) + zeros[..., None]).clamp(0, 15)
    values = ((codes - zeros[..., None]) * scale[..., None]).reshape(w.shape)
    return codes.reshape(w.shape), values, zeros, scale


def _gptq_asymmetric(w: torch.Tensor) -> Packed:
    codes, values, zeros, scale = _asymmetric(w)
    tensors = {
        "qweight": _words(codes.T, 4, axis=0),
        "qzeros": _words(zeros.T, 4, axis=1) - ONES[4],
        "scales": scale.T.half(),
        "g_idx": (torch.arange(w.shape[1]) // GROUP).int(),
    }
    config = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": False}
    return tensors, values, config


def _awq(w: torch.Tensor) -> Packed:
    codes, values, zeros, scale = _asymmetric(w)
    tensors = {
        "qweight": _words(codes.T, 4, axis=1, order=AWQ_ORDER),
        "qzeros": _words(zeros.T, 4, axis=1, order=AWQ_ORDER),
        "scales": scale.T.half(),
    }
    return tensors, values, {"quant_method": "awq", "bits": 4, "version": "gemm"}


def _words(
    codes: torch.Tensor, bits: int, axis: int, order: tuple[int, ...] | None = None
) -> torch.Tensor:
    """Unsigned integers along ``axis`` in words of 32 bits, number ``order[i]`` in place i."""
    array = np.moveaxis(codes.numpy().astype(np.int64) & (2**bits - 1), axis, 0)
    each = 32 // bits
    words = np.zeros((len(array) // each, *array.shape[1:]), np.uint32)
    for word, place in np.ndindex(len(words), each):
        value = array[word * each + (order[place] if order else place)]
        words[word] |= value.astype(np.uint32) << np.uint32(place * bits)
    return torch.from_numpy(np.moveaxis(words, 0, axis).copy().view(np.int32))


PACKERS: dict[str, Callable[[torch.Tensor], Packed]] = {
    "fp8 in blocks": _fp8((32, 48)),  # neither divides the weight
    "fp8": _fp8(None),
    "fp8 by powers of two": _fp8_by_powers,
    "fbgemm_fp8": _fbgemm,
    "modelopt FP8": _modelopt_fp8,
    "modelopt NVFP4": _modelopt_nvfp4,
    "int4 in groups": _compressed(32, num_bits=4, strategy="group"),
    "int4 with zero points": _compressed(32, num_bits=4, strategy="group", symmetric=False),
    "int8 packed": _compressed(num_bits=8, strategy="channel", symmetric=True),
    "int8 packed with one zero point": _compressed(num_bits=8, strategy="tensor", symmetric=False),
    "float8 by row": _compressed(type="float", num_bits=8, strategy="channel"),
    "float8 in blocks": _compressed(
        type="float", num_bits=8, strategy="block", block_structure=[16, 32]
    ),
    "nvfp4": _compressed(16, type="float", num_bits=4, strategy="tensor_group"),
    "mxfp4": _compressed(32, type="float", num_bits=4, strategy="group"),
    "gptq": _gptq(),
    "gptq of 8 bits": _gptq(8),
    "gptq_v2": _gptq(version="gptq_v2"),
    "gptq out of order": _gptq(ordered=True),
    "gptq with zero points": _gptq_asymmetric,
    "gptq with zero points of 0": _gptq(zero=1),  # and of 1
    "gptq of 8 bits with zero points of 0": _gptq(8, zero=1),
    "awq": _awq,
}
