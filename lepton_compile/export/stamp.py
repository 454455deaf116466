"""From traced layers to ONNX functions, and from layer calls to their call sites."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import fx
from torch.export import ExportedProgram

from .builder import Builder, Parameter
from .capture import Capture
from .dialect import DOMAIN, LAYER_DOMAIN, OPSET
from .layers import LayerCall, LayerModule, alike, kinds_of
from .program import inputs_of, program_parts
from .trace import EXAMPLE_SIZES, dims_of, trace
from .translate import HANDLERS, Translator
from .translate.masks import check_masks

__all__ = ["LayerFunction", "layer_functions"]


@dataclass(frozen=True)
class LayerFunction:
    """One kind of layer: its function and what each input stands for.

    ``activations`` are positions among the inputs of the layer call; ``windows`` has the sliding
    window of each cached attention, ``states`` the kind of each state; ``parameters`` are named by
    their path inside the layer. Inputs of the function are activations, parameters, caches and
    states in this order, outputs are results, caches and states.
    """

    function: ir.Function
    activations: tuple[int, ...]
    parameters: tuple[Parameter, ...]
    windows: tuple[int | None, ...]
    states: tuple[str, ...]

    @property
    def caches(self) -> int:
        return len(self.windows)


def layer_functions(
    calls: Sequence[LayerCall], capture: Capture, symbols: Mapping[str, str], longest: int
) -> list[LayerFunction]:
    """A function for each call; calls of one kind share theirs.

    Args:
        symbols: symbol -> dimension name of the outer trace, to name the inputs' dimensions.
        longest: upper bound of a sequence.
    """
    chosen: list[LayerFunction | None] = [None] * len(calls)
    count: dict[str, int] = {}

    def make(index: int) -> LayerFunction:
        kind = type(calls[index].module).__name__
        count[kind] = count.get(kind, 0) + 1
        name = f"{kind}_{count[kind] - 1}"
        return _function(calls[index], capture, symbols, longest, name)

    for members in kinds_of(calls):
        first = make(members[0])
        chosen[members[0]] = first
        if len(members) == 1:
            continue
        if alike(calls[members[0]], calls[members[-1]], capture):
            for member in members:
                chosen[member] = first
            continue
        last = make(members[-1])
        if _same(first, last):
            count[type(calls[members[0]].module).__name__] -= 1
            for member in members:
                chosen[member] = first
            continue
        # The code of the layer looks at its own index: each one is traced.
        chosen[members[-1]] = last
        for member in members[1:-1]:
            chosen[member] = make(member)
    return [function for function in chosen if function is not None]


def _function(
    call: LayerCall, capture: Capture, symbols: Mapping[str, str], longest: int, name: str
) -> LayerFunction:
    dims = [tuple(_dim_name(d, symbols) for d in tensor.shape) for tensor in call.inputs]
    examples = [
        torch.empty([_example(d, symbols) for d in tensor.shape], dtype=tensor.dtype, device="meta")
        for tensor in call.inputs
    ]
    program = trace(LayerModule(call, capture), examples, dims, longest)
    check_masks(program.graph, _masks(call, program))
    builder = Builder()
    lifted, constants = program_parts(program, "layer.")
    translator = Translator(
        builder, HANDLERS, dims=dims_of(program, dims), lifted=lifted, constants=constants
    )
    inputs = [ir.Value(name=f"input_{i}") for i in range(len(call.inputs))]
    outputs = translator.run(program.graph, inputs)
    used = _used(builder, outputs)
    activations = tuple(i for i, value in enumerate(inputs) if value in used)
    parameters = tuple(builder.parameters.values())
    caches = [value for pair in translator.caches for value in pair[:2]]
    presents = [value for pair in translator.caches for value in pair[2:]]
    states = translator.states
    graph = ir.Graph(
        [
            *(inputs[i] for i in activations),
            *(p.value for p in parameters),
            *caches,
            *(state.past for state in states),
        ],
        [*outputs, *presents, *(state.present for state in states)],
        nodes=builder.nodes,
        opset_imports={"": OPSET, DOMAIN: 1},
        name=name,
    )
    function = ir.Function(LAYER_DOMAIN, name, graph=graph, attributes=[])
    kinds = tuple(state.kind for state in states)
    return LayerFunction(function, activations, parameters, tuple(translator.windows), kinds)


def _masks(call: LayerCall, program: ExportedProgram) -> list[fx.Node]:
    """Those of the call's inputs that are masks."""
    return [n for n, rule in zip(inputs_of(program), call.rules, strict=True) if rule is not None]


def _dim_name(size: int | torch.SymInt, symbols: Mapping[str, str]) -> str | None:
    if not isinstance(size, torch.SymInt):
        return None
    return symbols.get(str(size.node.expr), "size_" + re.sub(r"\W+", "_", str(size)))


def _example(size: int | torch.SymInt, symbols: Mapping[str, str]) -> int:
    if not isinstance(size, torch.SymInt):
        return int(size)
    name = symbols.get(str(size.node.expr))
    return EXAMPLE_SIZES[name] if name else int(size.node.hint)


def _used(builder: Builder, outputs: Sequence[ir.Value]) -> set[ir.Value]:
    return {v for node in builder.nodes for v in node.inputs if v is not None} | set(outputs)


def _same(first: LayerFunction, second: LayerFunction) -> bool:
    def text(layer: LayerFunction) -> bytes:
        proto = ir.serde.serialize_function(layer.function)
        proto.name = ""
        return bytes(proto.SerializeToString(deterministic=True))

    def signature(layer: LayerFunction) -> object:
        return layer.activations, [(p.name, p.transform) for p in layer.parameters], layer.windows

    return signature(first) == signature(second) and text(first) == text(second)
