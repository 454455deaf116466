"""Weights whose checkpoint has integers in groups with zero points or offsets, or floats of 4 bits,
as they are.

    Before   MatMul(x, Transpose(W))                      W = (codes - zeros) * scales, made fp32
    After    MatMul(x, Transpose(DequantizeLinear<axis=1>(codes UINT4, scales, zeros UINT4)))
    offsets  MatMul(x, Transpose(Reshape(Add(Reshape(DequantizeLinear(codes, scales)), offsets))))
    floats   MatMul(x, Transpose(DequantizeLinear<axis=1>(codes INT8, scales)))
    act-order                            the same of Gather<axis=-1>(x, order), codes in that order

The numbers are those of the checkpoint (AWQ, GPTQ, compressed-tensors; Q4_K and Q4_1 of GGUF, which
have offsets), in the groups of the recipe: where these divide the checkpoint's, scales, zero points
and offsets are repeated. Of 8 bits likewise in UINT8, in the checkpoint's own groups; without zero
points, in INT8, where all of them are the middle. Of 4 bits those that are the middle or one less
are left to weight-int4: it finds the same levels without zero points, for which there are more
kernels. Floats of 4 bits (E2M1 of MXFP4) are twice their value in the graph, in INT8 with half the
scales: kernels of our own store them in 4 bits, others in 8.

Columns whose group tells how much they matter (act-order, ``desc_act`` of GPTQ) lie group by group
in the graph, and the layer reads its input in that order, which is made once for all that share it.
There weight-int4 would find no levels, so those around the middle are kept as well, in INT4.
Of experts both matrices are kept, or none.
Refuses: a target without zero points, offsets or floats; a table with offsets; other bits than the
recipe asks for, or groups that its own do not divide; groups that kernels do not have; a table or
experts out of order; values that were changed since; what no weight format takes. Such a weight is
rounded again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.experts import partner_of
from lepton_passes.grouped import Form, Grid, grouped
from lepton_passes.linear import weight_of
from lepton_passes.match import has_blocks, is_op
from lepton_passes.quant.weight_int4 import group_of
from lepton_passes.quant.weights import (
    Choice,
    Choose,
    dequantize,
    is_table,
    parameter_names,
    quantizable,
    why_kept,
)

__all__ = ["WeightStored"]


@dataclass(frozen=True)
class _Kept:
    """How integers are kept: what layers that share a function must have in common.

    Attributes:
        bits: 4 or 8.
        group: columns that share a scale in the graph, which divide those of the checkpoint.
        signed: they have no zero points, which all are the middle.
        form: what the codes go with.
        ordered: columns are in another order than those of the weight.
    """

    bits: int
    group: int
    signed: bool
    form: Form
    ordered: bool


_NAMES = {"offsets": "offsets", "floats": "floats of 4 bits"}

Verdict = _Kept | str | None
"""How they are kept, or why they are not; ``None`` where there is nothing to say."""


class WeightStored(LeptonPass):
    """Keep the integers, scales and zero points or offsets of a checkpoint, or its floats.

    Args:
        choose: format of each parameter; left out, that of the checkpoint.
        lacking: who has no zero points; left out, the target has them.
        own_forms: whether the target has offsets and floats, as kernels of our own do.
    """

    name = "weight-stored"
    summary = "Weights that a checkpoint has in groups of integers or small floats, as they are"
    changes_numbers = True

    def __init__(
        self, choose: Choose | None = None, lacking: str = "", *, own_forms: bool = True
    ) -> None:
        super().__init__()
        self._choose, self.lacking, self._own_forms = choose, lacking, own_forms

    def rewrite(self, body: Body) -> None:
        names = [value.name for value in quantizable(body)]

        def kinds(call: int) -> tuple[object, ...]:
            by_name = {value.name: value for value in quantizable(body)}
            return tuple(self._verdict(body, by_name[name], call) for name in names)

        for part in body.split(kinds):
            for value, (users, verdict) in self._verdicts(part).items():
                weight = weight_of(part, value)
                if verdict is None or weight is None:
                    continue
                if isinstance(verdict, str):
                    self.refuse(part, users[0], f"rounded again: {verdict}")
                elif (reason := why_kept(part, value, users, weight.rows)) is not None:
                    self.refuse(part, users[0], reason)
                elif verdict.ordered and any(user.op_type != "Transpose" for user in users):
                    reason = "its columns are out of order (act-order), and it is no layer's alone"
                    self.refuse(part, users[0], f"rounded again: {reason}")
                else:
                    _keep(part, value, users, verdict)
                    self.fire(part)

    def _verdicts(self, body: Body) -> dict[ir.Value, tuple[list[ir.Node], Verdict]]:
        """Weights with their readers, and what is to become of them."""
        found = quantizable(body)
        verdicts = {value: self._verdict(body, value, 0) for value in found}
        for value, verdict in dict(verdicts).items():
            partner = partner_of(body, value)
            if partner is not None and isinstance(verdict, _Kept):
                other = verdicts.get(partner)
                if other is None:  # weight-int4 would find its levels, but no zero points
                    other = self._verdict(body, partner, 0, alone=False)
                verdicts[value], verdicts[partner] = _pair(verdict, other)
        return {value: (users, verdicts[value]) for value, users in found.items()}

    def _verdict(self, body: Body, value: ir.Value, call: int, *, alone: bool = True) -> Verdict:
        tensors = body.weights(value)
        source = grouped(tensors[call]) if tensors else None
        wanted: Choice = None
        if source is not None and self._choose is not None:
            wanted = self._choose(parameter_names(body, value)[call], is_table(value))
        if source is None or (wanted is None and self._choose is not None):
            return None  # without a word in the recipe: the fp32 that it stands for
        grid = source.grid()
        if isinstance(grid, str):
            return grid
        group = _group_asked(grid, int(source.shape.numpy()[1]), wanted)
        if isinstance(group, str):
            return group
        if grid.form == "zeros":
            return self._with_zeros(grid, group, alone)
        if not self._own_forms or self.lacking:
            return f"{self.lacking or 'onnxruntime'} has no {_NAMES[grid.form]}"
        if grid.form == "offsets" and is_table(value):
            return "no kernel looks rows up that have offsets"
        return _Kept(grid.bits, group, signed=False, form=grid.form, ordered=False)

    def _with_zeros(self, grid: Grid, group: int, alone: bool) -> Verdict:
        least, most = grid.reach
        levels, four = 1 << grid.bits, grid.bits == 4
        if alone and four and grid.order is None and least >= 7 and most <= 8:
            return None  # weight-int4 finds the same levels
        if self.lacking and not (four and grid.signed):
            return f"{self.lacking} has no {'zero points' if four else 'groups of 8 bits'}"
        if least < 0 or most >= levels:
            return f"{least if least < 0 else most} is a zero point, and there are {levels} levels"
        signed, ordered = grid.signed, grid.order is not None
        return _Kept(grid.bits, group, signed=signed, form="zeros", ordered=ordered)


def _pair(one: _Kept, other: Verdict) -> tuple[Verdict, Verdict]:
    """What is to become of the two matrices of experts, which kernels know in one format alone."""
    if not isinstance(other, _Kept):
        reason = other or "the other matrix of its experts has no integers"
        return reason, other
    if replace(one, signed=other.signed) != other:
        reason = "the two matrices of its experts are in other groups than each other"
        return reason, reason
    both = replace(one, signed=one.signed and other.signed)
    return both, both


def _group_asked(grid: Grid, columns: int, wanted: Choice) -> int | str:
    """Columns of the groups that are asked for, or why they cannot be had."""
    group: int | None = grid.group
    if wanted is not None:
        if wanted[0] != grid.bits:
            return f"the checkpoint has {grid.bits} bits, the recipe {wanted[0]}"
        if wanted[1] is not None:
            group = group_of(columns, wanted[1])
    if group is None or grid.group % group:
        return f"the checkpoint has groups of {grid.group} columns, the recipe of {group}"
    if not has_blocks(group):
        return f"no kernel has groups of {group} columns"
    return group


def _keep(body: Body, value: ir.Value, users: Sequence[ir.Node], kept: _Kept) -> None:
    """The integers of each call, all kept in the same way."""

    def part(name: str, of: Callable[[Grid], ir.TensorProtocol]) -> ir.Value:
        def made(tensors: Sequence[ir.TensorProtocol]) -> ir.TensorProtocol:
            source = grouped(tensors[0])
            found = source.grid() if source is not None else None
            assert isinstance(found, Grid)
            return of(found.in_groups_of(kept.group))

        return body.derive([value], f"{value.name}_{name}", made)

    scales = part("scale", lambda each: each.scales)
    if kept.signed:
        inputs = [part("q", lambda each: each.integers()), scales]
    elif kept.form == "floats":
        inputs = [part("q", lambda each: each.codes), scales]
    elif kept.form == "offsets":
        offsets = part("offset", lambda each: each.offsets_3d())
        inputs = [part("q", lambda each: each.codes), scales, offsets]
    else:
        zeros = part("zero", lambda each: each.zero_points())
        inputs = [part("q", lambda each: each.codes), scales, zeros]
    if kept.ordered:
        order = part("order", _order)
        for layer in [use.node for user in users for use in user.outputs[0].uses()]:
            layer.replace_input_with(0, _in_order(body, layer, order))
    dequantize(body, value, users, inputs, kept.group, offsets=kept.form == "offsets")


def _order(grid: Grid) -> ir.TensorProtocol:
    assert grid.order is not None
    return ir.tensor(grid.order)


def _in_order(body: Body, layer: ir.Node, order: ir.Value) -> ir.Value:
    """The input of a layer in another order, which others may have asked for before."""
    x, wanted = layer.inputs[0], _numbers(body, order)
    assert x is not None
    readers = {use.node for use in x.uses()}
    for node in readers:
        if is_op(node, "Gather") and node.attributes.get_int("axis", 0) == -1:
            found = _numbers(body, node.inputs[1])
            if len(found) == len(wanted) and all(map(np.array_equal, found, wanted)):
                return node.outputs[0]
    first = next(node for node in body.graph if node in readers)
    turned = body.emit(first, "Gather", [x, order], {"axis": -1}).outputs[0]
    turned.type, turned.shape = x.type, x.shape
    return turned


def _numbers(body: Body, order: ir.Value | None) -> list[np.ndarray]:
    return [tensor.numpy() for tensor in body.weights(order) or []]
