"""Ops that meant something else in old opsets, and that the converter leaves as they were.

    Before   Resize of opset 10 and Upsample, turned into a Resize without a word on coordinates;
             Hardmax of opset 12 and less, over all axes from `axis` on
    After    Resize(coordinate_transformation_mode=asymmetric, nearest_mode=floor or ceil);
             Flatten -> Hardmax(axis=-1) -> Reshape

What they mean is in the operators' changelog of ONNX, and in onnxruntime where that is silent:
nearest numbers lie below where an axis grows, and above where it shrinks.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from lepton_compile.errors import SourceError

__all__ = ["keep_old_meanings"]

RESIZE, HARDMAX = 11, 13  # the opsets that gave them the meaning of today


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
