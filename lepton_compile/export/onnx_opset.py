"""Bring an ONNX file to the opset of the dialect: passes write ops that older opsets do not have.

    Before   opset 7 to 24; layers as functions or not; nodes in any order
    After    opset 24, nodes sorted; functions only where nothing had to be changed

From opset 18 on nodes are rewritten in place. Older files go through the converter of ``onnx``,
without their large weights. Ops that onnxruntime has in the standard domain without a definition
at the file's opset (LayerNormalization in a file of opset 14) are hidden from both, and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from lepton_compile.errors import SourceError

from .dialect import OPSET
from .external import held_in_memory
from .onnx_old_ops import before_raising, keep_old_meanings

__all__ = ["at_our_opset"]

HIDDEN = "ai.lepton.hidden"
ONLY_IN_ONNXRUNTIME = frozenset({"SimplifiedLayerNormalization"})
OLDEST = 7
IN_PLACE = 18  # the least opset whose files are rewritten node by node
SMALL = 1000  # weights up to this many numbers, or bytes, are shown to checker and converter


def at_our_opset(model: ir.Model, path: Path) -> None:
    """Check the structure of ``model`` and raise its opset, in place.

    Raises:
        SourceError: the file is no valid model, or its opset is one that cannot be raised.
    """
    opset = _opset(model, path)
    mains = {id(value.const_value) for value in model.graph.initializers.values()}
    held_in_memory(
        model, lambda tensor: min(tensor.size, tensor.nbytes) <= SMALL or id(tensor) not in mains
    )
    with _hidden(model, opset, path):
        _checked(model, path)
        if opset != OPSET:
            _raise_opset(model, opset, path)


def _opset(model: ir.Model, path: Path) -> int:
    """That of the standard domain, by whichever of its two names."""
    imports = model.graph.opset_imports
    if "ai.onnx" in imports:
        imports[""] = max(imports.pop("ai.onnx"), imports.get("", 0))
    if not model.graph.outputs:
        raise SourceError("the ONNX file has no outputs: it is no model", where=str(path))
    if "" not in imports and any(not node.domain for node in model.graph):
        raise SourceError("the ONNX file does not say which opset it is in", where=str(path))
    opset = imports.setdefault("", OPSET)
    if opset > OPSET:
        raise SourceError(
            "the ONNX file uses a newer opset than this version knows",
            where=str(path),
            found=str(opset),
            available=[f"up to {OPSET}"],
            hint=f"export the model again, with opset_version={OPSET}",
        )
    if opset < OLDEST:
        raise SourceError(
            "the ONNX file uses an opset of before ONNX Runtime's promise to read it",
            where=str(path),
            found=str(opset),
            available=[f"{OLDEST} to {OPSET}"],
            hint=f"export the model again, with opset_version={IN_PLACE} to {OPSET}",
        )
    return opset


@contextmanager
def _hidden(model: ir.Model, opset: int, path: Path) -> Iterator[None]:
    """Nodes without a definition at ``opset`` stand in another domain for a while.

    Raises:
        SourceError: an op that neither ONNX nor onnxruntime has in the standard domain.
    """
    for node in _standard_nodes(model):
        if _defined(node.op_type, opset):
            continue
        if not _defined(node.op_type, OPSET) and node.op_type not in ONLY_IN_ONNXRUNTIME:
            names = [name for name in (node.name, *(v.name for v in node.outputs)) if name]
            raise SourceError(
                "the ONNX file has an op that does not exist",
                where=": ".join([str(path), *names[:1]]),
                found=node.op_type,
                hint="an op of your own needs a domain, and a function in the file as its body",
            )
        node.domain = HIDDEN
    model.graph.opset_imports[HIDDEN] = 1
    try:
        yield
    finally:
        model.graph.opset_imports.pop(HIDDEN, None)
        for node in ir.traversal.RecursiveGraphIterator(model.graph):
            if node.domain == HIDDEN:
                node.domain = ""


def _standard_nodes(model: ir.Model) -> Iterator[ir.Node]:
    return (n for n in ir.traversal.RecursiveGraphIterator(model.graph) if not n.domain)


def _defined(op_type: str, opset: int) -> bool:
    try:
        onnx.defs.get_schema(op_type, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return False
    return True


def _checked(model: ir.Model, path: Path) -> None:
    from onnx_ir.passes.common import CheckerPass, ShapeInferencePass

    try:
        model.graph.sort()
        if any(value.type is None or value.shape is None for value in model.graph.outputs):
            ShapeInferencePass()(model)
        CheckerPass()(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise SourceError(
            "the ONNX file is not a valid model",
            where=str(path),
            found=" ".join(str(error).split())[:300],
            hint="onnx.checker.check_model says more",
        ) from error


def _raise_opset(model: ir.Model, opset: int, path: Path) -> None:
    from onnxscript.version_converter import convert_version

    before_raising(model, opset, path)
    with _complaints() as complaints:
        convert_version(model, OPSET, fallback=True)
    if model.graph.opset_imports.get("") != OPSET or complaints:
        raise SourceError(
            "the ONNX file's opset cannot be raised to the one that passes write",
            where=str(path),
            found=f"opset {opset}: {'; '.join(complaints)}",
            hint=f"export the model again, with opset_version={IN_PLACE} to {OPSET}",
        )
    keep_old_meanings(model, opset, path)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the converter only logs: that it gave up, or left a node as it was."""
    found: list[str] = []

    def kept(record: logging.LogRecord) -> bool:
        if record.exc_info or record.msg.startswith("Skipping"):
            cause = record.exc_info[1] if record.exc_info else None
            found.append(str(cause or record.getMessage()))
        return False

    names = ("", "._version_converter")
    loggers = [logging.getLogger(f"onnxscript.version_converter{name}") for name in names]
    for logger in loggers:
        logger.addFilter(kept)
    try:
        yield found
    finally:
        for logger in loggers:
            logger.removeFilter(kept)
