"""Rotary tables as products of two small ones: a plan holds them in fp32, whatever the weights are.

    Before   cos = Gather(cos_table, p)          both (positions, half of the width)
             sin = Gather(sin_table, p)
    After    h = p / step;  l = p - step h
             cos = cos_coarse[h] cos_fine[l] - sin_coarse[h] sin_fine[l]
             sin = sin_coarse[h] cos_fine[l] + cos_coarse[h] sin_fine[l]

Row p turns by p angles: it is the row of step h turned by the row of l. With a step near the root
of the length, 4096 rows become 64 and 64. The rows are the table's own, so that products are as far
from the exact angle as the table is, whose angles are rounded to fp32, and no kernel has to compute
a sine of a large number.

Place: in front of lower-half-precision, so that the check of each pass sees it in fp32.
Leaves short tables, and those that end before the cache, which lower-trt-static-cache refuses.
Refuses: a table whose rows are not such products.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.match import made_by

__all__ = ["LowerTrtRotaryTables"]

SHORT = 1024
"""Rows of a table that is not worth the arithmetic."""


class LowerTrtRotaryTables(LeptonPass):
    """Rotary tables as products of two small ones.

    Args:
        capacity: positions that the engine will see, where it is known.
    """

    name = "lower-trt-rotary-tables"
    summary = "Rotary tables as products of two small ones"
    changes_numbers = True

    def __init__(self, capacity: int | None = None) -> None:
        super().__init__()
        self._least = max(SHORT, capacity or 0)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._seen: set[ir.Node] = set()
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        main = Body(body.model)
        for node in body.nodes("RotaryEmbedding"):
            cosines, sines = map(body.arguments, node.inputs[1:3])
            for pair in zip(cosines or (), sines or (), strict=False):
                self._factor(main, *pair)

    def _factor(self, main: Body, cos: ir.Value, sin: ir.Value) -> None:
        """One pair of lookups, once for all layers that read it."""
        lookups = [made_by(each, "Gather") for each in (cos, sin)]
        first, second = lookups
        if first is None or second is None or first.inputs[1] is not second.inputs[1]:
            return
        if first in self._seen:
            return
        self._seen.add(first)
        tables = [_table(each) for each in (first, second)]
        if tables[0] is None or tables[1] is None or tables[0].shape != tables[1].shape:
            return
        rows = len(tables[0])
        if rows <= SHORT or rows < self._least:
            return
        step = 1 << ((rows - 1).bit_length() + 1) // 2
        turned = tables[0] + 1j * tables[1]
        parts = _parts(turned, step)
        if parts is None:
            self.refuse(main, first, "its rows are not products of others")
            return
        before = next(node for node in main.graph if node in (first, second))
        for old, new in zip((cos, sin), _product(main, before, first, second, parts), strict=True):
            main.replace(old, new)
        self.fire(main)


def _table(lookup: ir.Node) -> np.ndarray | None:
    """The rows that are looked up, where they are constants in fp32."""
    table = lookup.inputs[0]
    if table is None or table.const_value is None or table.dtype != ir.DataType.FLOAT:
        return None
    if lookup.attributes.get_int("axis", 0) != 0 or len(table.const_value.shape) != 2:
        return None
    return table.const_value.numpy()


def _parts(turned: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Coarse and fine rows, (cos + i sin), whose products are ``turned``."""
    if not turned[0].all():
        return None
    # Some models scale the rotation: each row carries the factor, a product would carry it twice.
    coarse, fine = turned[::step] / turned[0], turned[:step]
    # Twice what rounding an angle to fp32 moves it by, at the end of the table.
    allowed = max(len(turned) * 2.0**-22, 1e-6) * float(np.abs(turned[0]).max())
    for number, row in enumerate(coarse):
        there = turned[number * step : (number + 1) * step]
        if not np.abs(row * fine[: len(there)] - there).max() <= allowed:
            return None
    return coarse, fine


def _product(
    main: Body,
    before: ir.Node,
    cos: ir.Node,
    sin: ir.Node,
    parts: tuple[np.ndarray, np.ndarray],
) -> tuple[ir.Value, ir.Value]:
    """(cos, sin) of the positions that ``cos`` and ``sin`` look up, made in front of ``before``."""

    def node(op_type: str, *inputs: ir.Value | None) -> ir.Value:
        return main.emit(before, op_type, inputs).outputs[0]

    def row(lookup: ir.Node, end: str, array: np.ndarray, at: ir.Value) -> ir.Value:
        table = lookup.inputs[0]
        assert table is not None
        made = ir.tensor(np.ascontiguousarray(array, np.float32))
        return node("Gather", main.derive([table], f"{table.name}.{end}", lambda _: made), at)

    positions, (coarse, fine) = cos.inputs[1], parts
    step = main.constant_node(before, np.array(len(fine), np.int64))
    high = node("Div", positions, step)
    low = node("Sub", positions, node("Mul", high, step))
    cos_high, sin_high = (
        row(cos, "coarse", coarse.real, high),
        row(sin, "coarse", coarse.imag, high),
    )
    cos_low, sin_low = row(cos, "fine", fine.real, low), row(sin, "fine", fine.imag, low)
    return (
        node("Sub", node("Mul", cos_high, cos_low), node("Mul", sin_high, sin_low)),
        node("Add", node("Mul", sin_high, cos_low), node("Mul", cos_high, sin_low)),
    )
