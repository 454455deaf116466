"""Weights of an ONNX model: types, sizes and how they are quantized, read from headers alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_compile.cli.onnxfile.walk import attributes

__all__ = ["ExternalFile", "QuantizedWeights", "dtype_name", "external_files", "quantized", "size"]

# Quantized operands of each op: the input of a weight, that of its scale, and of its zero points.
# Weights of our own kernels have scales and offsets among their bytes.
OPERANDS: dict[str, tuple[tuple[int, int | None, int | None], ...]] = {
    "MatMulNBits": ((1, 2, 3),),
    "GatherBlockQuantized": ((0, 2, 3),),
    "DequantizeLinear": ((0, 1, 2),),
    "DynamicQuantizeMatMul": ((1, 2, 3),),
    "MatMulInteger": ((1, None, 3),),
    "MatMulIntegerToFloat": ((1, 3, 5),),
    "DynamicQuantizeLSTM": ((1, None, None),),
    "QMoE": ((2, 3, 11), (5, 6, 12), (8, 9, 13)),
    "QuantizedLinear": ((1, None, None),),
    "QuantizedEmbedding": ((0, None, None),),
    "QuantizedExperts": ((3, None, None), (4, None, None)),
}

# Attributes of our own kernels that say whether the weight at an input has offsets.
OFFSETS = {"QuantizedExperts": {3: "offsets", 4: "down_offsets"}}

# Attributes that say how many bits a weight has, and what they are where an op leaves them out.
STATED_BITS = ("bits", "expert_weight_bits")
DEFAULT_BITS = {"MatMulNBits": 4, "GatherBlockQuantized": 4, "QMoE": 4}

BITS = {"INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2, "FLOAT4E2M1": 4, "INT8": 8, "UINT8": 8}


_Stored = tuple[str, int, str, bool]
"""A weight by its name, and how it is stored: bits, block, whether there are zero points."""


@dataclass(frozen=True)
class QuantizedWeights:
    """Weights stored the same way.

    Attributes:
        op: the op that reads them; all of them, by name, where a weight has several readers.
        bits: bits of one weight.
        block: weights that share a scale; ``row`` or ``tensor`` where it is not a number.
        count: how many weights, each stored tensor once.
        bytes: their size with their scales and zero points.
        zeros: each block has a zero point, or an offset, of its own.
    """

    op: str
    bits: int
    block: str
    count: int
    bytes: int
    zeros: bool = False


@dataclass(frozen=True)
class ExternalFile:
    """A file that holds weights: the bytes the model needs of it, and those that are there."""

    name: str
    needed: int
    found: int | None


def dtype_name(code: int) -> str:
    """``FLOAT`` for 1, and so on; the number for a type this version of onnx does not know."""
    from onnx import TensorProto

    known = {value: name for name, value in TensorProto.DataType.items()}
    return str(known.get(code, f"type {code}"))


def size(tensor: Any) -> int:
    """Bytes of a TensorProto's data, from its shape and type alone."""
    from onnx import TensorProto, helper

    count: int = math.prod(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    name = dtype_name(tensor.data_type)
    if BITS.get(name, 8) < 8:
        return -(-count * BITS[name] // 8)
    if tensor.data_type not in helper.get_all_tensor_dtypes():
        return len(tensor.raw_data)
    return int(count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def external_files(tensors: Iterable[Any], folder: Path) -> tuple[ExternalFile, ...]:
    """The files that tensors point into, looked at from outside only."""
    needed: dict[str, int] = {}
    for tensor in tensors:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if not place:
            continue
        name = place.get("location", "")
        end = _number(place.get("offset", 0)) + _number(place.get("length", size(tensor)))
        needed[name] = max(needed.get(name, 0), end)
    return tuple(ExternalFile(n, e, _found(folder, n)) for n, e in sorted(needed.items()))


def quantized(
    visited: Iterable[tuple[Any, Mapping[str, Any]]],
) -> tuple[QuantizedWeights, ...]:
    """The quantized weights among the nodes, grouped by op, bits and block; largest first.

    What several ops read, as an embedding and a head that are tied do, counts once.
    """
    ops: dict[_Stored, set[str]] = {}
    parts: dict[_Stored, dict[str, int]] = {}
    for node, weights in visited:
        for places in OPERANDS.get(node.op_type, ()):
            weight, scale, zeros = (_operand(node, weights, at) for at in places)
            if weight is None:
                continue
            values = attributes(node)
            bits, block = _bits(node, weight, values), _block(node, weight, scale, values)
            offsets = values.get(OFFSETS.get(node.op_type, {}).get(places[0], "offsets"), 0)
            shifted = block.isdigit() and (zeros is not None or bool(offsets))
            key = (weight.name, bits, block, shifted)
            ops.setdefault(key, set()).add(node.op_type)
            sizes = {part.name: size(part) for part in (weight, scale, zeros) if part is not None}
            parts.setdefault(key, {}).update(sizes)
    groups: dict[tuple[str, int, str, bool], list[int]] = {}
    for key, found in parts.items():
        _, bits, block, shifted = key
        readers = (", ".join(sorted(ops[key])), bits, block, shifted)
        groups.setdefault(readers, []).append(sum(found.values()))
    alike = [
        QuantizedWeights(op, bits, block, len(g), sum(g), shifted)
        for (op, bits, block, shifted), g in groups.items()
    ]
    return tuple(sorted(alike, key=lambda group: -group.bytes))


def _operand(node: Any, weights: Mapping[str, Any], at: int | None) -> Any:
    if at is None or at >= len(node.input):
        return None
    return weights.get(node.input[at])


def _bits(node: Any, weight: Any, values: Mapping[str, Any]) -> int:
    stated = next((values[name] for name in STATED_BITS if name in values), None)
    if stated is not None:
        return int(stated)
    return DEFAULT_BITS.get(node.op_type) or BITS.get(dtype_name(weight.data_type), 8)


def _block(node: Any, weight: Any, scale: Any, values: Mapping[str, Any]) -> str:
    block = int(values.get("block_size", 0) or 0)
    if block:
        return str(block)
    if node.op_type == "GatherBlockQuantized":
        return "128"  # the op's default
    if scale is None or math.prod(scale.dims) == 1:
        return "tensor"
    return "row"


def _found(folder: Path, name: str) -> int | None:
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        return path.stat().st_size if name and inside and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # a name that no file has, links in a circle
        return None


def _number(text: Any) -> int:
    """What is no number says nothing of where a tensor ends."""
    try:
        return int(text)
    except ValueError:
        return 0
