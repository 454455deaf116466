"""What is decided together: weights that fusions stack, and tables by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body, bodies
from lepton_passes.experts import experts_in
from lepton_passes.linear import linears_by_input
from lepton_passes.match import is_decoder, largest_block
from lepton_passes.quant.calibration import parameters_of
from lepton_passes.quant.scales import quantize_int4, quantize_int8, quantize_int8_blocks
from lepton_passes.quant.weight_int4_weighted import weighted_int4
from lepton_passes.quant.weights import (
    SMALL_TABLE,
    is_router,
    is_table,
    parameter_names,
    quantizable,
)

__all__ = ["GROUP", "Part", "Unit", "kind_of", "units_of"]

GROUP = 32
"""Columns that share a scale in 4 bits."""


@dataclass(frozen=True)
class Part:
    """One weight.

    Attributes:
        name: the parameter's, as rules name it.
        tensor: its values, fp32, (rows, columns).
        table: rows of it are looked up.
        block: columns that share a scale in 8 bits; None where a row has one.
    """

    name: str
    tensor: ir.TensorProtocol
    rows: int
    columns: int
    table: bool
    block: int | None

    @property
    def formats(self) -> tuple[int | None, ...]:
        """Bits that it can be stored in, the most first; None is floating point."""
        return (None, 8, 4) if self.columns % GROUP == 0 else (None, 8)

    def bytes(self, bits: int | None) -> int:
        """Bytes of the numbers and their scales."""
        group = GROUP if bits == 4 else self.block or self.columns
        scales = self.columns // group * 4 if bits is not None else 0
        return self.rows * (self.columns * (bits or 32) // 8 + scales)

    def rounded(self, w: np.ndarray, bits: int | None, energy: np.ndarray | None) -> np.ndarray:
        """Rows ``w`` as a format stores them, fp32; ``energy`` is of what the columns read."""
        if bits is None:
            return w
        if bits == 4:
            pair = quantize_int4(w, GROUP) if energy is None else weighted_int4(w, GROUP, energy)
        else:
            pair = quantize_int8(w) if self.block is None else quantize_int8_blocks(w, self.block)
        q, scale = pair
        return np.asarray((q.reshape(scale.size, -1) * scale.reshape(-1, 1)).reshape(w.shape))


@dataclass(frozen=True)
class Unit:
    """Weights that get the same bits."""

    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """Name of the first weight."""
        return self.parts[0].name

    @property
    def kind(self) -> str:
        """What is the same in every layer, such as ``mlp.gate_proj + up_proj``."""
        return kind_of([part.name for part in self.parts])

    @property
    def table(self) -> bool:
        """Whether one of them is a table."""
        return any(part.table for part in self.parts)

    @property
    def formats(self) -> tuple[int | None, ...]:
        """Bits that all of them can be stored in, the most first."""
        return min((part.formats for part in self.parts), key=len)

    def bytes(self, bits: int | None) -> int:
        """Bytes of all of them."""
        return sum(part.bytes(bits) for part in self.parts)


def units_of(model: ir.Model) -> list[Unit]:
    """The weights of the neutral graph that may be quantized, in the order of the graph.

    Layers that read one input may be stacked, and stacks take weights of one format.
    """
    decoder = is_decoder(model)
    parts: dict[str, Part] = {}
    together: list[list[str]] = []
    for body in bodies(model):
        for part in _parts(body, decoder):
            known = parts.get(part.name, part)
            parts[part.name] = replace(known, table=known.table or part.table)
        together += _together(body)
    order = {name: place for place, name in enumerate(model.graph.initializers)}
    groups = _joined([[name for name in names if name in parts] for names in together], parts)
    units = [Unit(tuple(parts[name] for name in group)) for group in groups]
    return sorted(units, key=lambda unit: order.get(unit.name, len(order)))


def kind_of(names: Sequence[str]) -> str:
    """Names without what differs from layer to layer, the last words of all."""
    shorts = [re.sub(r"^.*?\.\d+\.", "", name.removesuffix(".weight")) for name in names]
    front, _, first = shorts[0].rpartition(".")
    last = [first, *(short.rpartition(".")[2] for short in shorts[1:])]
    return (f"{front}." if front and "." not in front else "") + " + ".join(dict.fromkeys(last))


def _parts(body: Body, decoder: bool) -> Iterable[Part]:
    for value, users in quantizable(body).items():
        if is_router(body, value):
            continue
        table = is_table(value)
        names = parameter_names(body, value)
        for name, tensor in zip(names, body.weights(value) or [], strict=True):
            rows, columns = (int(d) for d in tensor.shape.numpy())
            if table and rows < SMALL_TABLE and len(users) == 1:
                continue
            block = largest_block(columns) if decoder else None
            yield Part(name, tensor, rows, columns, table, block)


def _together(body: Body) -> list[list[str]]:
    """Names of the weights that read the same, for each input and call; and of the two of a mixture
    of experts, which no kernel takes in two formats."""
    readers = [
        [parameters_of(body, linear) for linear in users]
        for users in linears_by_input(body).values()
    ]
    mixtures = [
        [parameter_names(body, weight.values[0]) for weight in (each.gate_up, each.down)]
        for each in experts_in(body)
    ]
    groups = [*readers, *mixtures]
    return [list(names) for users in groups for names in zip(*users, strict=True)]


def _joined(groups: Iterable[Sequence[str]], parts: Mapping[str, Part]) -> list[list[str]]:
    """Groups that have a name in common as one, and the rest by themselves."""
    of: dict[str, list[str]] = {name: [name] for name in parts}
    for group in groups:
        for name in group[1:]:
            first, second = of[group[0]], of[name]
            if first is not second:
                first.extend(second)
                of.update(dict.fromkeys(second, first))
    return list({id(members): members for members in of.values()}.values())
