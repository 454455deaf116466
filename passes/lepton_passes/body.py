"""One body of a model: the main graph, or the function of a layer with the calls that use it.

In a layer function a weight is an input, and the tensor behind it differs from call to call. A
pass that packs or quantizes a weight has to replace the input, and one initializer for each call.
``Body`` does that bookkeeping, so that a pass is written once and reads the same for both kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

__all__ = [
    "DIALECT",
    "LAYER_DOMAIN",
    "MICROSOFT",
    "Body",
    "bodies",
    "branches",
    "sweep",
    "whole_bodies",
]

DIALECT = "ai.lepton"
MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own ops."""
LAYER_DOMAIN = "ai.lepton.layer"
SMALL = 1 << 16
_SOURCES = "lepton.sources"

Make = Callable[[Sequence[ir.TensorProtocol]], ir.TensorProtocol]


class Body:
    """The main graph (``calls`` empty) or a layer function together with its calls.

    Attributes:
        model: the model that owns the body.
        graph: the nodes; for a function, the graph inside it.
        function: the function, or ``None`` for the main graph.
        calls: nodes of the main graph that call the function, in order.
    """

    def __init__(
        self, model: ir.Model, function: ir.Function | None = None, calls: Iterable[ir.Node] = ()
    ) -> None:
        self.model = model
        self.function = function
        self.graph: ir.Graph = model.graph if function is None else function.graph
        self.calls = tuple(calls)

    @property
    def name(self) -> str:
        """Name of the function; empty for the main graph."""
        return self.function.name if self.function is not None else ""

    @property
    def times(self) -> int:
        """How many layers share the body; 1 for the main graph."""
        return len(self.calls) if self.function is not None else 1

    def nodes(self, *op_types: str, domain: str = "") -> list[ir.Node]:
        """The nodes as they are now, in order; those of the given types of a domain when any are
        given."""
        if not op_types:
            return list(self.graph)
        return [n for n in self.graph if n.op_type in op_types and n.domain == domain]

    def arguments(self, value: ir.Value | None) -> list[ir.Value] | None:
        """What the main graph passes for ``value``, one entry a call; the value itself in the main
        graph. ``None`` without one, where it is made inside the function, or a call leaves it out.
        """
        if value is None:
            return None
        if self.function is None:
            return [value]
        if not value.is_graph_input():
            return None
        position = _position(self.graph.inputs, value)
        found = [call.inputs[position] for call in self.calls]
        return [v for v in found if v is not None] if None not in found else None

    def results(self, value: ir.Value) -> list[ir.Value]:
        """What the main graph gets for ``value``, an entry for each call and place among the
        outputs; the value itself in the main graph."""
        if self.function is None:
            return [value]
        places = [i for i, out in enumerate(self.graph.outputs) if out is value]
        return [call.outputs[place] for call in self.calls for place in places]

    def weights(self, value: ir.Value | None) -> list[ir.TensorProtocol] | None:
        """The tensors behind a weight, one a call; ``None`` when it is not constant everywhere."""
        arguments = self.arguments(value)
        if arguments is None:
            return None
        tensors = [
            v.const_value for v in arguments if v.is_initializer() and not v.is_graph_input()
        ]
        return [t for t in tensors if t is not None] if len(tensors) == len(arguments) else None

    def constant(self, value: ir.Value | None) -> np.ndarray | None:
        """A small constant that all calls agree on, from a Constant node or initializers."""
        if value is None:
            return None
        node = value.producer()
        if node is not None:
            tensor = _constant_of(node)
            return None if tensor is None or tensor.size > SMALL else tensor.numpy()
        tensors = self.weights(value)
        if not tensors or tensors[0].size > SMALL:
            return None
        first = tensors[0].numpy()
        same = all(t is tensors[0] or np.array_equal(first, t.numpy()) for t in tensors[1:])
        return first if same else None

    def derive(self, values: Sequence[ir.Value], name: str, make: Make) -> ir.Value:
        """A weight computed from other weights, lazily.

        Args:
            values: weights of this body (:meth:`weights` is not ``None`` for any).
            name: name inside the body. The initializer of a call gets the same prefix as the first
                source has there: ``up_proj.weight_q`` becomes ``model.layers.3.up_proj.weight_q``.
            make: called once for each distinct set of sources, with the tensors in the order of
                ``values``. Calls whose sources are shared (tied weights) share the result.

        Returns:
            The new weight. Sources without further use go away when the pass ends.
        """
        if self.function is None:
            return self._initializer(values, name, make)
        key = tuple(values)
        for known in self.graph.inputs:
            if known.name == name and known.meta.get(_SOURCES) == key:
                return known
        columns = []
        for value in values:
            arguments = self.arguments(value)
            assert arguments is not None, f"{value.name} is not an argument of every call"
            columns.append(arguments)
        made = [
            self._initializer(sources, self._outer_name(call, values[0], sources[0], name), make)
            for call, sources in zip(self.calls, zip(*columns, strict=True), strict=True)
        ]
        derived = self.lift(name, made)
        derived.meta[_SOURCES] = key
        return derived

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A new weight of the main graph; :meth:`lift` takes such weights into a function."""
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self.model.graph.register_initializer(value)
        return value

    def lift(self, name: str, outer: Sequence[ir.Value]) -> ir.Value:
        """Pass values of the main graph into the function, one a call; reuses an input that already
        carries exactly these. In the main graph, the value itself."""
        if self.function is None:
            return outer[0]
        for known in self.graph.inputs:
            if self.arguments(known) == list(outer):
                return known
        first = outer[0]
        taken = {v.name for v in self.graph.inputs}
        inner = ir.Value(name=_unique(name, taken), type=first.type, shape=first.shape)
        self.graph.inputs.append(inner)
        for call, value in zip(self.calls, outer, strict=True):
            call.resize_inputs(len(call.inputs) + 1)
            call.replace_input_with(len(call.inputs) - 1, value)
        return inner

    def emit(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | str | Sequence[int] | ir.Attr] | None = None,
        *,
        domain: str = "",
        outputs: int = 1,
    ) -> ir.Node:
        """A new node in front of ``before``; its domain is imported where needed."""
        trimmed = list(inputs)
        while trimmed and trimmed[-1] is None:
            trimmed.pop()
        node = ir.node(op_type, trimmed, attributes, domain=domain, num_outputs=outputs)
        self.graph.insert_before(before, node)
        if domain:
            self.graph.opset_imports.setdefault(domain, 1)
            self.model.graph.opset_imports.setdefault(domain, 1)
        return node

    def constant_node(self, before: ir.Node, array: np.ndarray) -> ir.Value:
        """A small constant in front of ``before``."""
        node = ir.node("Constant", [], {"value": ir.tensor(array)})
        self.graph.insert_before(before, node)
        return node.outputs[0]

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let every reader of ``old`` read ``new``; an output of the body keeps its name."""
        if old.is_graph_output():
            if new.is_graph_output() or new.producer() is None:
                raise ValueError(f"{new.name} cannot also stand for the output {old.name}")
            # A node that stays for another of its outputs needs a name for this one, too.
            name, old.name = old.name, self._unused(f"{old.name}.before")
            new.name = name
        new.type = new.type or old.type
        new.shape = old.shape if new.shape is None else new.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)

    def replace_all(self, old: Sequence[ir.Value], new: Sequence[ir.Value]) -> None:
        """:meth:`replace` each by the one in its place; there are as many."""
        for before, after in zip(list(old), new, strict=True):
            self.replace(before, after)

    def can_replace(self, old: ir.Value, new: ir.Value) -> bool:
        """Whether :meth:`replace` may be called: an output needs a node of its own."""
        return not old.is_graph_output() or (
            new.producer() is not None and not new.is_graph_output()
        )

    def split(self, key: Callable[[int], Hashable]) -> list[Body]:
        """Bodies whose calls agree on ``key(index of the call)``; the function is cloned for each
        further key. The main graph is one body whatever the key."""
        if self.function is None:
            return [self]
        groups: dict[Hashable, list[ir.Node]] = {}
        for index, call in enumerate(self.calls):
            groups.setdefault(key(index), []).append(call)
        first, *others = groups.values()
        rest = [self._clone(calls) for calls in others]
        self.calls = tuple(first)
        return [self, *rest]

    def _unused(self, name: str) -> str:
        """``name``, or one like it, that no value of the graph has."""
        nodes = list(self.graph.all_nodes())
        taken = {value.name for node in nodes for value in (*node.inputs, *node.outputs) if value}
        taken.update(value.name for value in self.graph.inputs)
        return _unique(name, taken | {*self.graph.initializers})

    def _clone(self, calls: Sequence[ir.Node]) -> Body:
        assert self.function is not None
        function = self.function.clone()
        names: set[str | None] = {f.name for f in self.model.functions.values()}
        function.name = _unique(self.function.name, names)
        self.model.functions[function.identifier()] = function
        for call in calls:
            call.op_type = function.name
        return Body(self.model, function, calls)

    def _initializer(self, sources: Sequence[ir.Value], name: str, make: Make) -> ir.Value:
        tensors = [source.const_value for source in sources]
        key = tuple(map(id, tensors))
        graph, initializers = self.model.graph, self.model.graph.initializers
        outside = {value.name for value in (*graph.inputs, *graph.outputs)} - {*initializers}
        for known in (each for each in _numbered(name) if each not in outside):
            if known not in initializers:
                name = known
                break
            if initializers[known].meta.get(_SOURCES, (None,))[0] == key:
                return initializers[known]
        value = self.initializer(name, make([t for t in tensors if t is not None]))
        # The tensors are kept beside their ids: an id alone may be reused by another object.
        value.meta[_SOURCES] = (key, tensors)
        return value

    def _outer_name(self, call: ir.Node, inner: ir.Value, outer: ir.Value, name: str) -> str:
        local, full = inner.name or "", outer.name or ""
        if local and full.endswith(local):
            return full[: len(full) - len(local)] + name
        return f"{call.name}.{name}"


def branches(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs in a node: those of If, Loop and Scan."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
            yield attribute.as_graph()


def bodies(model: ir.Model) -> list[Body]:
    """The layer functions that are called, then the main graph."""
    calls: dict[tuple[str, str, str], list[ir.Node]] = {}
    for node in model.graph:
        if node.domain == LAYER_DOMAIN:
            calls.setdefault(node.op_identifier(), []).append(node)
    layers = [Body(model, model.functions[key], nodes) for key, nodes in calls.items()]
    return [*layers, Body(model)]


def whole_bodies(model: ir.Model) -> list[Body]:
    """Every function, called by the main graph or not, then the main graph: for what is asked of
    each node, as it is written. Those inside of branches are among ``graph.all_nodes()``."""
    known = bodies(model)
    layers = {body.function for body in known}
    others = [Body(model, each) for each in model.functions.values() if each not in layers]
    return [*others, *known]


def sweep(model: ir.Model) -> int:
    """Remove what nothing reads: nodes, inputs of layer functions, initializers, functions.

    Returns:
        How many things were removed.
    """
    removed = 0
    for body in bodies(model):
        removed += _sweep_nodes(body.graph)
        if body.function is not None:
            removed += _sweep_inputs(body)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_input() and not value.is_graph_output():
            del model.graph.initializers[name]
            removed += 1
    return removed + _sweep_functions(model)


def _sweep_nodes(graph: ir.Graph) -> int:
    removed = 0
    for node in reversed(list(graph)):
        if not any(out.uses() or out.is_graph_output() for out in node.outputs):
            graph.remove(node, safe=True)
            removed += 1
    return removed


def _sweep_inputs(body: Body) -> int:
    inputs = body.graph.inputs
    unused = [i for i, v in enumerate(inputs) if not v.uses() and not v.is_graph_output()]
    if not unused:
        return 0
    dropped = set(unused)
    for call in body.calls:
        kept = [v for i, v in enumerate(call.inputs) if i not in dropped]
        for i, value in enumerate(kept):
            call.replace_input_with(i, value)
        call.resize_inputs(len(kept))
    for i in reversed(unused):
        inputs.pop(i)
    return len(unused)


def _sweep_functions(model: ir.Model) -> int:
    reached: set[tuple[str, str, str]] = set()
    pending = [node.op_identifier() for node in model.graph.all_nodes()]
    while pending:
        key = pending.pop()
        if key in model.functions and key not in reached:
            reached.add(key)
            pending += [node.op_identifier() for node in model.functions[key].all_nodes()]
    unused = [key for key in model.functions if key not in reached]
    for key in unused:
        del model.functions[key]
    return len(unused)


def _constant_of(node: ir.Node) -> ir.TensorProtocol | None:
    if node.op_type != "Constant" or node.domain:
        return None
    return ir.convenience.get_const_tensor(node.outputs[0])


def _position(values: Sequence[ir.Value], value: ir.Value) -> int:
    return next(i for i, v in enumerate(values) if v is value)


def _numbered(name: str) -> Iterable[str]:
    yield name
    number = 1
    while True:
        yield f"{name}.{number}"
        number += 1


def _unique(name: str, taken: set[str | None]) -> str:
    return next(n for n in _numbered(name) if n not in taken)
