"""Replace the weights of linear layers, experts and embedding tables by DequantizeLinear.

    Before   MatMul(x, Transpose(W));  Gather(W, ids)
    After    d = DequantizeLinear(W_q, W_scale);  MatMul(x, Transpose(d));  Gather(d, ids)

Experts have two weights in one format. What they are chosen by is declined: an error there is
another expert. A tied weight stays one weight. When the choice differs between layers that share a
function, the function is cloned. Refuses: columns that no group divides; a weight that something
else reads too; one without numbers, which kernels do not take; a table of few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.experts import experts_in, scorers, shared_columns
from lepton_passes.linear import dequantized, linears, weight_of
from lepton_passes.match import is_op, made_by
from lepton_passes.tensors import StreamedTensor

__all__ = [
    "SMALL_TABLE",
    "Choice",
    "Choose",
    "QuantizeWeights",
    "Rows",
    "dequantize",
    "is_router",
    "is_table",
    "parameter_names",
    "quantizable",
    "stored_name",
    "why_kept",
]

Choice = tuple[int, int | None] | None
"""(bits, group) of a weight; ``None`` keeps it. Group ``None`` is the default of the format."""

Choose = Callable[[str, bool], Choice]
"""Choice for a parameter by name; the flag says that it is an embedding table."""

SMALL_TABLE = 2048
"""Rows below which a table that is only looked up is left as it is."""


class Rows(Protocol):
    """A weight in a format, row by row; ``QuantizedRows`` is one."""

    def weight(self, dtype: ir.DataType) -> StreamedTensor:
        """The integers, (rows, columns)."""

    def scale(self) -> StreamedTensor:
        """The scales, fp32."""


class QuantizeWeights(LeptonPass):
    """Base of the weight formats.

    Args:
        choose: format of each parameter; left out, this format for all.
    """

    bits: ClassVar[int]
    dtype: ClassVar[ir.DataType]
    changes_numbers = True

    def __init__(self, choose: Choose | None = None) -> None:
        super().__init__()
        self._choose: Choose = choose or (lambda _name, _embedding: (self.bits, None))
        self._quantized: dict[tuple[int, int | None], Rows] = {}

    def rewrite(self, body: Body) -> None:
        names = [value.name for value in quantizable(body)]

        def decisions(call: int) -> tuple[Choice, ...]:
            by_name = {value.name: value for value in quantizable(body)}
            return tuple(self._choice(body, by_name[name], call) for name in names)

        for part in body.split(decisions):
            for value, users in quantizable(part).items():
                if self._choice(part, value, 0) is not None:
                    self._replace(part, value, users)

    def group_for(self, columns: int, group: int | None) -> int | None:
        """Columns that share a scale; ``None`` for whole rows, or where nothing divides them."""
        raise NotImplementedError

    def refuses(self, columns: int, group: int | None) -> str | None:
        """Why a weight of so many columns cannot be stored this way."""
        raise NotImplementedError

    def declines(self, body: Body, value: ir.Value) -> str | None:
        """Why this format declines one weight that it could store."""
        return None

    def quantized(self, tensor: ir.TensorProtocol, group: int | None) -> Rows:
        """The rows of one weight."""
        raise NotImplementedError

    def _choice(self, body: Body, value: ir.Value, call: int) -> Choice:
        choice = self._choose(parameter_names(body, value)[call], is_table(value))
        return choice if choice is not None and choice[0] == self.bits else None

    def _replace(self, body: Body, value: ir.Value, users: Sequence[ir.Node]) -> None:
        weight, choice = weight_of(body, value), self._choice(body, value, 0)
        assert weight is not None
        assert choice is not None
        columns = shared_columns(body, value) or weight.columns
        group = self.group_for(columns, choice[1])
        reason = self.refuses(columns, group) or why_kept(body, value, users, weight.rows)
        reason = reason or self.declines(body, value)
        if reason is not None:
            self.refuse(body, users[0], reason)
            return

        def rows(tensors: Sequence[ir.TensorProtocol]) -> Rows:
            key = (id(tensors[0]), group)
            if key not in self._quantized:
                self._quantized[key] = self.quantized(tensors[0], group)
            return self._quantized[key]

        q = body.derive([value], f"{value.name}_q", lambda t: rows(t).weight(self.dtype))
        scale = body.derive([value], f"{value.name}_scale", lambda t: rows(t).scale())
        dequantize(body, value, users, [q, scale], group)
        self.fire(body)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        result = super().call(model)
        self._quantized = {}
        return result


def dequantize(
    body: Body,
    value: ir.Value,
    users: Sequence[ir.Node],
    inputs: Sequence[ir.Value],
    group: int | None,
    *,
    offsets: bool = False,
) -> None:
    """Let ``users`` read what is dequantized in place of ``value``."""
    weight = weight_of(body, value)
    assert weight is not None
    shape = (weight.rows, weight.columns)
    made = dequantized(body, users[0], inputs, group, shape, offsets=offsets)
    made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), value.shape
    for user in users:
        for position, operand in enumerate(user.inputs):
            if operand is value:
                user.replace_input_with(position, made)


def why_kept(body: Body, value: ir.Value, users: Sequence[ir.Node], rows: int) -> str | None:
    """Why a weight keeps its fp32 whatever the format."""
    others = [use.node for use in value.uses() if use.node not in users]
    if others:
        return f"the weight is also read by {others[0].op_type}"
    if 0 in list(value.shape or ()):
        return "it has no numbers"
    if is_router(body, value):
        return "experts are chosen by it"
    if is_table(value) and rows < SMALL_TABLE and len(users) == 1:
        return f"a table of {rows} rows is not worth it"
    return None


def quantizable(body: Body) -> dict[ir.Value, list[ir.Node]]:
    """fp32 weights of linear layers, experts and tables, with their readers in graph order."""
    found: dict[ir.Value, list[ir.Node]] = {}
    for linear in linears(body):
        turned = made_by(linear.node.inputs[1], "Transpose")
        if linear.weight.plain and turned is not None:
            found.setdefault(linear.weight.values[0], []).append(turned)
    for mixture in experts_in(body):
        for weight in (mixture.gate_up, mixture.down):
            if weight.plain:
                found.setdefault(weight.values[0], []).append(mixture.node)
    for node in body.nodes("Gather"):
        table = weight_of(body, node.inputs[0])
        if table is not None and table.plain and _looks_ids_up(node):
            found.setdefault(table.values[0], []).append(node)
    order = {node: index for index, node in enumerate(body.graph)}
    return {value: sorted(set(users), key=order.__getitem__) for value, users in found.items()}


def _looks_ids_up(node: ir.Node) -> bool:
    """Whether a Gather reads rows by an input of the graph: tables by position are left alone."""
    return node.attributes.get_int("axis", 0) == 0 and _are_ids(node.inputs[1])


def _are_ids(value: ir.Value | None) -> bool:
    """Whether a value is an input of the graph, or that where others take the place of some."""
    if value is None or value.is_initializer():
        return False
    if (chosen := made_by(value, "Where")) is not None:
        return any(map(_are_ids, chosen.inputs[1:]))
    maker = made_by(value, "Cast", "Reshape", "Identity")
    return value.is_graph_input() if maker is None else _are_ids(maker.inputs[0])


def parameter_names(body: Body, value: ir.Value) -> list[str]:
    """Names in the checkpoint of a weight as it was stored, one for each call of the body."""
    return [stored_name(each) for each in body.arguments(value) or []]


def stored_name(value: ir.Value) -> str:
    """What the checkpoint calls a weight, of which a graph may read several forms."""
    return (value.name or "").split(":")[0]


def is_table(value: ir.Value) -> bool:
    """Whether rows of a weight are looked up."""
    return any(is_op(use.node, "Gather") for use in value.uses())


def is_router(body: Body, value: ir.Value) -> bool:
    """Whether experts are chosen by a weight: it stays as it is."""
    choosing = scorers(body)
    return any(x.node in choosing and x.weight.values[0] is value for x in linears(body))
