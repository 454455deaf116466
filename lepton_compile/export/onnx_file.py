"""Take an existing ``.onnx`` file as the neutral graph.

Nothing is captured: the file is read, its weights stay where they are until they are written, its
opset is raised to ours, and linear layers are put into the dialect's one form so that the passes
find them.

    MatMul(x, W)                 becomes  MatMul(x, Transpose(W'))           W' = W transposed
    Gemm<transB=t>(x, W, b)      becomes  Add(MatMul(x, Transpose(W')), b)
"""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path

import onnx_ir as ir

from lepton_compile.artifact.manifest import UNKNOWN_LENGTH
from lepton_compile.errors import RecipeError, SourceError
from lepton_passes.body import Body, bodies
from lepton_passes.linear import stored_precisions
from lepton_passes.match import input_at
from lepton_passes.origin import mark_file
from lepton_passes.tensors import transposed

from .export import ExportedModel
from .external import weight_files
from .onnx_embedded import load_onnx
from .onnx_opset import at_our_opset
from .onnx_sizes import infer_sizes, name_sizes
from .onnx_sound import check_sound
from .onnx_weights import own_weights
from .source import Source

__all__ = ["import_onnx"]

LIFTED = 1000  # constants of this many numbers may be weights
CALLED_INPUTS = 4  # before this version of the IR every initializer is an input, too, by rule


def import_onnx(source: Source, task: str | None, length: int | None = None) -> ExportedModel:
    """Read the file of a source of kind ``onnx``.

    Args:
        length: longest sequence wanted; left out, what the file takes.

    Raises:
        RecipeError: the file takes sequences of another length alone.
        SourceError: not a valid ONNX model, sizes that cannot be, an opset that is not known or
            cannot be raised, or external data outside the file's folder.
    """
    model = _load(source.path)
    check_sound(model, source.path)
    weight_files(model, source.path)
    at_our_opset(model, source.path)
    mark_file(model)
    infer_sizes(model)
    name_sizes(model)
    _weights_as_initializers(model)
    _names_of_their_own(model)
    own_weights(model)
    main = Body(model)
    for node in list(model.graph):
        _canonical(main, node)
    # Of one that was turned, the original is still there, and nothing reads it.
    read = (value for value in model.graph.initializers.values() if value.uses())
    weights = [value.const_value for value in read if value.const_value is not None]
    return ExportedModel(
        model=model,
        task=task or "other",
        architecture=model.graph.name or "ONNX",
        caches=[],
        parameters=sum(t.size for t in weights if t.dtype.is_floating_point()),
        length=_length(model, length),
        how="imported",
        kinds=0,
        stored=_stored(model),
    )


def _stored(model: ir.Model) -> str:
    """Precision of quantized weights; ``static-`` where activations are rounded, too.

    Such graphs keep onnxruntime's usual kernels: 1.32 does not open all of them with its exact ones
    for AVX2, which a loader asks for where the precision is int8.
    """
    found = min(stored_precisions(model), default="")
    rounds = any(body.nodes("QuantizeLinear") for body in bodies(model))
    return f"static-{found}" if found and rounds else found


def _load(path: Path) -> ir.Model:
    try:
        return load_onnx(path)
    except SourceError:
        raise
    except Exception as error:  # protobuf, onnx_ir and the file system each raise their own
        cause: BaseException = error  # onnx_ir wraps what is wrong in what it was doing
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise SourceError(
            "the ONNX file cannot be read",
            where=str(path),
            found=f"{type(cause).__name__}: {cause}",
            hint="onnx.checker.check_model may say more",
        ) from error


def _names_of_their_own(model: ir.Model) -> None:
    """Leave the names free that passes give: a name is that of one value, inside and outside.

    onnx_ir calls new values val_N, as PyTorch's exporter does, and counts graph by graph; so does
    the converter of onnx, with _v_N. Weights that are made of another are called by its name and an
    ending.
    """
    weights, outer = set(model.graph.initializers), _made_in(model.graph)
    inner = [value for graph in model.graph.subgraphs() for value in _values(graph)]
    taken = {value.name for value in (*inner, *_values(model.graph))}
    names = (f"inner_{n}" for n in count())
    for value in (*inner, *(value for value in outer if not value.is_graph_output())):
        name = value.name or ""
        begins = (name[: match.start()] for match in re.finditer(r"[_.:]", name))
        counted = value.graph is not model.graph and re.fullmatch(r"(val|_v)_\d+", name)
        if counted or not weights.isdisjoint(begins):
            value.name = next(name for name in names if name not in taken)


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *_made_in(graph)]


def _made_in(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs]


def _weights_as_initializers(model: ir.Model) -> None:
    """Weights that stand in Constant nodes, and those of files that had to list them as inputs."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    LiftConstantsToInitializersPass(size_limit=LIFTED)(model)
    for value in model.graph.initializers.values():
        _called_alike(value)
    if (model.ir_version or 0) < CALLED_INPUTS:
        wanted = [value for value in model.graph.inputs if not value.is_initializer()]
        model.graph.inputs[:] = wanted


def _called_alike(value: ir.Value) -> None:
    """Give a weight the name of its value, as its own: by that packed weights are told apart."""
    assert value.const_value is not None
    value.const_value.name = value.name or ""


def _canonical(main: Body, node: ir.Node) -> None:
    if node.domain or node.op_type not in ("MatMul", "Gemm"):
        return
    weight = node.inputs[1]
    if weight is None or not weight.is_initializer() or weight.const_value is None:
        return
    if len(weight.const_value.shape) != 2 or weight.is_graph_input():
        return
    if node.op_type == "MatMul":
        _turn(main, node, weight, by_rows=False)
    elif _plain_gemm(node):
        _split_gemm(main, node, weight)


def _plain_gemm(node: ir.Node) -> bool:
    numbers = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    return numbers == [1.0, 1.0] and node.attributes.get_int("transA", 0) == 0


def _split_gemm(main: Body, node: ir.Node, weight: ir.Value) -> None:
    graph, by_rows = main.graph, node.attributes.get_int("transB", 0) == 1
    name = _name_of(node)
    product = ir.node("MatMul", [node.inputs[0], weight], name=name)
    graph.insert_before(node, product)
    _turn(main, product, weight, by_rows=by_rows)
    last = product
    if input_at(node, 2) is not None:
        last = ir.node("Add", [product.outputs[0], node.inputs[2]], name=f"{name}/bias")
        graph.insert_before(node, last)
    old, new = node.outputs[0], last.outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    old.name = None
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _turn(main: Body, node: ir.Node, weight: ir.Value, *, by_rows: bool) -> None:
    """Read ``weight`` through a Transpose; store it (out, in) if it is not yet."""
    stored = weight
    if not by_rows:
        stored = main.derive([weight], f"{weight.name}_by_rows", lambda t: transposed(t[0]))
        _called_alike(stored)
    name = _name_of(node)
    turn = ir.node("Transpose", [stored], {"perm": [1, 0]}, name=f"{name}/Transpose")
    turn.outputs[0].type = stored.type
    if stored.shape is not None:
        turn.outputs[0].shape = ir.Shape(list(stored.shape)[::-1])
    main.graph.insert_before(node, turn)
    node.replace_input_with(1, turn.outputs[0])


def _name_of(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or node.op_type


def _length(model: ir.Model, wanted: int | None) -> int:
    """A static sequence length where the file has one; else what is wanted, or what stands for one
    that is not known."""
    for value in model.graph.inputs:
        if value.name == "input_ids" and value.shape is not None and len(value.shape) == 2:
            size = value.shape[1]
            if isinstance(size, int) and wanted not in (None, size):
                raise RecipeError(
                    "the ONNX file takes sequences of one length",
                    where="shapes.sequence",
                    found=f"an end of {wanted}",
                    available=[str(size)],
                    hint="leave shapes.sequence out, or export the model with a dynamic axis",
                )
            if isinstance(size, int):
                return size
    return wanted or UNKNOWN_LENGTH
