"""The walk over a traced program: values, constants, symbolic sizes."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, fx

from lepton_compile.errors import ExportError
from lepton_compile.export.builder import Builder
from lepton_compile.export.program import op_name
from lepton_compile.export.refusal import OwnCodeError

from .idle import idle
from .in_place import put_back, writes, written
from .types import DTYPES

__all__ = ["DTYPES", "Handler", "State", "Translator", "UnknownOpError"]

Handler = Callable[["Translator", fx.Node], Any]
_SIZE_OPS = ("Add", "Mul", "Min", "Max")


class State(NamedTuple):
    """What an op keeps from run to run: ``kind`` is "conv" or "recurrent"."""

    kind: str
    past: ir.Value
    present: ir.Value


class UnknownOpError(OwnCodeError):
    """The program has an op that no handler translates."""


class Translator:
    """Translates one ``fx`` graph.

    Args:
        builder: receives the nodes.
        handlers: op name without overload (``aten.add``) -> handler.
        dims: symbol -> dimension name, from ``trace.dims_of``.
        lifted: placeholder name -> path of the parameter or buffer it stands for.
        constants: placeholder or attribute name -> real tensor.
    """

    def __init__(
        self,
        builder: Builder,
        handlers: Mapping[str, Handler],
        *,
        dims: Mapping[str, str],
        lifted: Mapping[str, str],
        constants: Mapping[str, Tensor],
    ) -> None:
        self.builder = builder
        self.dims = dims
        self.lifted = lifted
        self.constants = constants
        self.values: dict[fx.Node, Any] = {}
        self.caches: list[tuple[ir.Value, ir.Value, ir.Value, ir.Value]] = []
        self.presents: dict[fx.Node, tuple[ir.Value, ir.Value]] = {}  # by new keys
        self.windows: list[int | None] = []  # of each entry of `caches`; None where unlimited
        self.states: list[State] = []
        self._handlers = handlers
        self._sizes: dict[str, tuple[ir.Value, int]] = {}

    # -- the walk ---------------------------------------------------------------------------

    def run(self, graph: fx.Graph, inputs: Sequence[Any]) -> list[Any]:
        """Translate every node; returns the values of the graph's outputs."""
        pending, unread = iter(inputs), idle(graph)
        for node in graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, pending)
            elif node.op == "get_attr":
                self.values[node] = getattr(graph.owning_module, node.target)
            elif node.op == "call_function" and (node not in unread or self._measures(node)):
                self._call(node)
            elif node.op == "output":
                outputs = node.args[0]
                flat = outputs if isinstance(outputs, list | tuple) else [outputs]
                return [self.values[n] if isinstance(n, fx.Node) else n for n in flat]
        raise ExportError("the traced program has no output")

    def _placeholder(self, node: fx.Node, pending: Any) -> None:
        if node.name in self.lifted or node.name in self.constants:
            self.values[node] = node  # resolved on use: a weight may be read transposed
            return
        value = next(pending)
        self.values[node] = value
        if isinstance(value, ir.Value):
            self._note_sizes(node, value)

    def _measures(self, node: fx.Node) -> bool:
        """Whether it reads a size of something known: others may need it without asking here."""
        return str(node.target) == "aten.sym_size.int" and node.args[0] in self.values

    def _call(self, node: fx.Node) -> None:
        target = node.target
        if target is operator.getitem:
            self.values[node] = self.values[node.args[0]][node.args[1]]  # type: ignore[index]
            return
        if isinstance(node.meta.get("val"), torch.SymInt | torch.SymBool | torch.SymFloat | int):
            self.values[node] = node.meta["val"]
            self._remember_size(node)
            return
        name = str(target)
        if "wrap_with" in name:
            self.values[node] = self._inline(node)
            return
        op = op_name(node)
        handler = self._handlers.get(op) or self._handlers.get(op.removesuffix("_"))
        place = written(node) if writes(op) else None
        if writes(op) and place is None:
            raise UnknownOpError(
                "the model writes into a tensor that it has by two names",
                where=self.path(node),
                found=name,
            )
        if handler is None:
            raise UnknownOpError(
                "no translation for an op of the model", where=self.path(node), found=name
            )
        try:
            result = handler(self, node)
            if place is not None:
                put_back(self, place, result)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UnknownOpError(
                "an op of the model is used in a form that has no translation",
                where=self.path(node),
                found=f"{name}: {type(error).__name__}: {error}",
            ) from error
        self.values[node] = result
        self._annotate(node, result)

    def _inline(self, node: fx.Node) -> list[Any]:
        """``wrap_with_set_grad_enabled`` and its kin: run the submodule in place."""
        position = next(
            i for i, a in enumerate(node.args) if isinstance(self.get(a), fx.GraphModule)
        )
        module = self.get(node.args[position])
        inputs = [self.get(argument) for argument in node.args[position + 1 :]]
        return self.run(module.graph, inputs)

    # -- reading arguments ------------------------------------------------------------------

    def get(self, argument: Any) -> Any:
        """The translated form of an argument: a value, a symbolic size or a Python constant."""
        return self.values[argument] if isinstance(argument, fx.Node) else argument

    def arg(self, node: fx.Node, index: int, name: str = "", default: Any = None) -> Any:
        """Argument ``index`` (or keyword ``name``) of a node, as it stands in the program."""
        if len(node.args) > index:
            return node.args[index]
        return node.kwargs.get(name, default)

    def value(self, argument: Any, like: fx.Node | None = None) -> ir.Value:
        """The ONNX value of a tensor argument. Python numbers take the dtype of ``like``."""
        found = self.get(argument)
        if isinstance(found, ir.Value):
            return found
        if isinstance(found, fx.Node):
            return self.weight(found)
        if isinstance(found, Tensor):
            return self._constant(found)
        if isinstance(found, torch.SymInt):
            return self._cast_scalar(self.size(found), like)
        dtype = like.meta["val"].dtype if like is not None else torch.tensor(found).dtype
        return self.builder.constant(np.array(found, dtype=DTYPES[dtype].numpy()))

    def weight(self, node: fx.Node, transform: str = "") -> ir.Value:
        """A lifted parameter, buffer or constant of the program."""
        if node.name in self.constants:
            return self._constant(self.constants[node.name])
        shape = [int(d) for d in node.meta["val"].shape]
        if transform == "transpose":
            shape = shape[::-1]
        return self.builder.parameter(
            self.lifted[node.name], shape, DTYPES[node.meta["val"].dtype], transform
        )

    def is_weight(self, argument: Any) -> bool:
        return isinstance(argument, fx.Node) and argument.name in self.lifted

    def _constant(self, tensor: Tensor) -> ir.Value:
        if tensor.device.type == "meta":
            raise ExportError(
                "the model computes with a constant whose value was never stored",
                found=f"{tensor.dtype} of shape {tuple(tensor.shape)}",
            )
        return self.builder.constant(tensor.detach().numpy())

    def _cast_scalar(self, value: ir.Value, like: fx.Node | None) -> ir.Value:
        scalar = self.builder.op("Squeeze", [value, self.builder.ints(0)])
        if like is None or like.meta["val"].dtype == torch.int64:
            return scalar
        return self.builder.op("Cast", [scalar], {"to": DTYPES[like.meta["val"].dtype].value})

    # -- symbolic sizes ---------------------------------------------------------------------

    def _note_sizes(self, node: fx.Node, value: ir.Value) -> None:
        shape = getattr(node.meta.get("val"), "shape", ())
        for axis, size in enumerate(shape):
            if isinstance(size, torch.SymInt):
                self._sizes.setdefault(str(size.node.expr), (value, axis))

    def _remember_size(self, node: fx.Node) -> None:
        """``sym_size`` of a value: where that size can be read at run time."""
        size = node.meta["val"]
        if str(node.target) == "aten.sym_size.int" and isinstance(size, torch.SymInt):
            source = self.get(node.args[0])
            if isinstance(source, ir.Value):
                self._sizes.setdefault(str(size.node.expr), (source, int(node.args[1])))  # type: ignore[arg-type]

    def size(self, size: Any) -> ir.Value:
        """A (possibly symbolic) size as an int64 tensor of one element."""
        if not isinstance(size, torch.SymInt):
            return self.builder.ints(int(size))
        return self._expression(size.node.expr)

    def named_size(self, name: str) -> ir.Value:
        """The size of a named dimension as an int64 tensor of one element."""
        symbol = next(symbol for symbol, known in self.dims.items() if known == name)
        value, axis = self._sizes[symbol]
        return self.builder.op("Shape", [value], {"start": axis, "end": axis + 1})

    def _expression(self, expr: Any) -> ir.Value:
        if str(expr) in self._sizes:
            value, axis = self._sizes[str(expr)]
            return self.builder.op("Shape", [value], {"start": axis, "end": axis + 1})
        if expr.is_Integer:
            return self.builder.ints(int(expr))
        kind, terms = type(expr).__name__, expr.args
        if kind in ("Pow", "PowByNatural") and terms[1].is_Integer and terms[1] > 0:
            kind, terms = "Mul", [terms[0]] * int(terms[1])
        if kind in ("FloorDiv", "CleanDiv"):
            return self.builder.op("Div", [self._expression(term) for term in terms])
        if kind not in _SIZE_OPS:
            raise ExportError(
                "the model computes a size in a way that has no translation", found=str(expr)
            )
        result = self._expression(terms[0])
        for term in terms[1:]:
            result = self.builder.op(kind, [result, self._expression(term)])
        return result

    def shape_value(self, sizes: Sequence[Any], source: fx.Node | None = None) -> ir.Value:
        """Sizes as a Reshape target: 0 copies a dimension of ``source``, one -1 is inferred."""
        sizes = [self.get(size) for size in sizes]
        if source is not None:
            constant = self._copied(sizes, source)
            if constant is not None:
                return self.builder.ints(*constant)
        if all(not isinstance(size, torch.SymInt) for size in sizes):
            return self.builder.ints(*(int(size) for size in sizes))
        return self.builder.op("Concat", [self.size(size) for size in sizes], {"axis": 0})

    @staticmethod
    def _copied(sizes: Sequence[Any], source: fx.Node) -> list[int] | None:
        shape = source.meta["val"].shape
        out: list[int] = []
        for axis, size in enumerate(sizes):
            if not isinstance(size, torch.SymInt):
                out.append(int(size))
            elif axis < len(shape) and str(shape[axis]) == str(size):
                out.append(0)
            elif -1 not in out:
                out.append(-1)
            else:
                return None
        return out if out.count(-1) <= 1 else None

    # -- annotations ------------------------------------------------------------------------

    def dim_names(self, shape: Sequence[Any]) -> ir.Shape:
        """A torch shape with symbols by their dimension names."""
        return ir.Shape(
            [
                self._dim_name(str(d.node.expr)) if isinstance(d, torch.SymInt) else int(d)
                for d in shape
            ]
        )

    def _dim_name(self, size: str) -> str:
        """A size as ONNX says it: a symbol of the trace is a name there, in products, too."""
        return re.sub(r"\bs\d+\b", lambda found: self.dims.get(found[0], found[0]), size)

    def path(self, node: fx.Node) -> str:
        """Path of the module that a node came from."""
        stack = node.meta.get("nn_module_stack") or {}
        last = list(stack.values())[-1][0] if stack else ""
        return str(last).removeprefix("network").removeprefix("layer").removeprefix(".")

    def _annotate(self, node: fx.Node, result: Any) -> None:
        found = node.meta.get("val")
        values = result if isinstance(result, list | tuple) else [result]
        metas = found if isinstance(found, list | tuple) else [found]
        for value, meta in zip(values, metas, strict=False):
            if isinstance(value, ir.Value) and isinstance(meta, Tensor) and value.shape is None:
                if meta.dtype not in DTYPES:
                    raise UnknownOpError(
                        "the model computes in a type that has no translation",
                        where=self.path(node),
                        found=f"{node.target}: {meta.dtype}",
                    )
                value.dtype = DTYPES[meta.dtype]
                value.shape = self.dim_names(meta.shape)
