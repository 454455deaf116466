"""Ops that meant something else in old opsets, and that the converter leaves as they were.

    Before   Resize of opset 10 and Upsample, turned into a Resize without a word on coordinates;
             Hardmax of opset 12 and less, over all axes from `axis` on;
             the mask of a Dropout of opset 11 and less, a number up to opset 9
    After    Resize(coordinate_transformation_mode=asymmetric, nearest_mode=floor or ceil);
             Flatten -> Hardmax(axis=-1) -> Reshape;
             zeros, or all false, which is what onnxruntime gives

And what it cannot convert: a Softmax of opset 12 and less that a branch reads gets an Identity in
between, for the converter puts another node in its place. Scan of opset 8, which goes over a batch,
is refused: it has no place for that any more.

What they mean is in the operators' changelog of ONNX, and in onnxruntime where that is silent:
nearest numbers lie below where an axis grows, and above where it shrinks.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import onnx_ir as ir

from lepton_compile.errors import SourceError

__all__ = ["before_raising", "keep_old_meanings"]

# The opsets that gave them the meaning of today.
SCAN, RESIZE, DROPOUT, HARDMAX, SOFTMAX = 9, 11, 12, 13, 13
BOOLEAN = 10  # the opset from which on the mask of a Dropout is one


def before_raising(model: ir.Model, opset: int, path: Path) -> None:
    """Have the converter find what it can convert.

    Raises:
        SourceError: a Scan over a batch.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.domain:
            continue
        if node.op_type == "Scan" and opset < SCAN:
            raise SourceError(
                "a Scan of an old opset cannot be raised to a newer one",
                where=": ".join([str(path), *filter(None, [node.name])]),
                found=f"opset {opset}, where it goes over a batch",
                available=[f"Scan of opset {SCAN} and more"],
                hint=f"export the model again, with opset_version={SCAN} or more",
            )
        if node.op_type in ("Softmax", "LogSoftmax") and opset < SOFTMAX:
            _set_apart(model, node)


def _set_apart(model: ir.Model, node: ir.Node) -> None:
    """Branches read a node of their own, which nothing puts another in the place of."""
    (made,) = node.outputs
    inside = [use for use in made.uses() if use.node.graph is not node.graph]
    if not inside:
        return
    assert node.graph is not None
    same = ir.node("Identity", [made])
    out = same.outputs[0]
    taken = {v.name for n in ir.traversal.RecursiveGraphIterator(model.graph) for v in n.outputs}
    out.name = next(f"{made.name}.{n}" for n in count() if f"{made.name}.{n}" not in taken)
    out.type, out.shape = made.type, made.shape
    node.graph.insert_after(node, same)
    for use in inside:
        use.node.replace_input_with(use.idx, out)


def keep_old_meanings(model: ir.Model, opset: int, path: Path) -> None:
    """Have nodes from a file of ``opset``, converted by now, compute what they did there.

    Raises:
        SourceError: sizes to the nearest number that grow along one axis and shrink along another,
            or are known when the model runs: no newer Resize has both roundings.
    """
    for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
        if node.domain:
            continue
        if node.op_type == "Resize" and opset < RESIZE:
            _place(node, path)
        if node.op_type == "Dropout" and opset < DROPOUT:
            _nothing_dropped(node, boolean=opset >= BOOLEAN)
        if node.op_type == "Hardmax" and opset < HARDMAX:
            _flatten(node)


def _place(node: ir.Node, path: Path) -> None:
    """Coordinates of a Resize are scaled, and no more."""
    node.attributes["coordinate_transformation_mode"] = ir.AttrString(
        "coordinate_transformation_mode", "asymmetric"
    )
    if node.attributes.get_string("mode", "nearest") == "nearest":
        node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", _rounding(node, path))


def _rounding(node: ir.Node, path: Path) -> str:
    held = ir.convenience.get_const_tensor(node.inputs[2]) if node.inputs[2] is not None else None
    scales = [] if held is None else held.numpy().tolist()
    if scales and all(scale >= 1 for scale in scales):
        return "floor"
    if scales and all(scale <= 1 for scale in scales):
        return "ceil"
    raise SourceError(
        "a Resize of an old opset cannot be raised to a newer one",
        where=": ".join([str(path), *filter(None, [node.name])]),
        found=f"nearest numbers at scales {scales or 'that are known when it runs'}",
        available=["scales in the file, all of 1 and more, or of 1 and less", "mode linear"],
        hint=f"export the model again, with opset_version={RESIZE} or more",
    )


def _flatten(node: ir.Node) -> None:
    """The node itself becomes the Reshape, so that its output stays what it is."""
    axis, x = node.attributes.get_int("axis", 1), node.inputs[0]
    shape = ir.node("Shape", [x])
    flat = ir.node("Flatten", [x], attributes={"axis": axis})
    most = ir.node("Hardmax", flat.outputs, attributes={"axis": -1})
    assert node.graph is not None
    node.graph.insert_before(node, [shape, flat, most])
    node.op_type = "Reshape"
    node.attributes.clear()
    node.resize_inputs(2)
    node.replace_input_with(0, most.outputs[0])
    node.replace_input_with(1, shape.outputs[0])


def _nothing_dropped(node: ir.Node, *, boolean: bool) -> None:
    """The mask of a Dropout without training, where something reads it."""
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if mask is None or not (mask.uses() or mask.is_graph_output()):
        return
    x = node.inputs[0]
    shape = ir.node("Shape", [x])
    zero = ir.tensor(np.zeros(1, np.bool_))
    made = [shape, ir.node("ConstantOfShape", shape.outputs, attributes={"value": zero})]
    if not boolean:
        made.append(ir.node("CastLike", [made[-1].outputs[0], x]))
    assert node.graph is not None
    node.graph.insert_after(node, made)
    new, name = made[-1].outputs[0], mask.name
    kind = ir.TensorType(ir.DataType.BOOL) if boolean else x.type if x is not None else None
    mask.name = None
    new.name, new.type, new.shape = name, kind, mask.shape
    ir.convenience.replace_all_uses_with(mask, new, replace_graph_outputs=True)
    node.resize_outputs(1)
