"""From the module of a task to a neutral graph without weights: traced, then translated."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from lepton_compile.errors import ExportError

from . import meta
from .builder import Builder
from .capture import NAME, OWN, TORCH, Capture, ExpertsError, LooksAheadError, capturing
from .chain import NO_LAYERS, Chain, LayerTrace, Place, stamping
from .dialect import DOMAIN, LAYER_DOMAIN, OPSET, functions
from .kept import CacheLayer, Layers, StateLayer, name_kept, presents_of
from .program import program_parts
from .refusal import OwnCodeError
from .stamp import LayerFunction, layer_functions
from .tasks import CacheUse, DecoderModule, TaskModule
from .trace import EXAMPLE_SIZES, dims_of, trace
from .translate import HANDLERS, State, Translator
from .translate.core import DTYPES, Handler
from .translate.masks import OWN_ATTENTION, check_masks

__all__ = ["Graph", "Way", "build_graph"]

NOT_CALLED = "the model does not call torch's attention"
HINT = (
    "compile another architecture, or give an .onnx file of this model as the source; with "
    "LEPTON_DEBUG=1 the traceback says where the model's code was"
)


@dataclass
class Graph:
    """A neutral graph without values.

    Attributes:
        model: weights are initializers without a tensor.
        parameters: value name -> (parameter path, transform) of each weight to bind.
        values: small tensors that export made itself (rotary tables, buffers), by value name.
        how: name of the ``Way`` that worked.
        foresees: whether a token's rotary embedding depends on tokens after it (LongRoPE).
        near_to: how many tokens a call may have for the first set of its frequencies; 0 without.
    """

    model: ir.Model
    parameters: dict[str, tuple[str, str]]
    values: dict[str, np.ndarray]
    caches: list[CacheLayer]
    states: list[StateLayer]
    how: str
    kinds: int = 0
    foresees: bool = False
    near_to: int = 0
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Way:
    """One way of capturing a model.

    Args:
        name: "stamped" (each distinct layer traced once) or "whole"; "plain" where the attention
            is the model's own code.
        attention: where attention is captured, as ``capturing`` takes it.
        cache: who reads a decoder's cache.
    """

    name: str
    attention: str
    cache: CacheUse = "captured"


WAYS = (
    Way("stamped", NAME),
    Way("whole", NAME),
    Way("stamped", TORCH),
    Way("whole", TORCH),
    Way("plain", OWN, "own"),
    Way("plain", OWN, "none"),
)


def build_graph(make: Callable[[CacheUse], TaskModule], positions: int) -> Graph:
    """Trace a model and translate it, in the first of the ``WAYS`` that works.

    Args:
        make: the task's module on the meta device, by who reads a decoder's cache.
        positions: rows of the rotary tables, and the longest sequence.

    Raises:
        ExportError: no way works; the reasons of all are in the message. Or the model is to
            generate text, and looks ahead.
    """
    refused: dict[str, list[str]] = {}  # reason -> the ways that it is of
    settled: dict[str, list[str]] = {}  # where attention is captured -> the ways of its reason
    hint: str | None = None
    for way in WAYS:
        if way.attention in settled:
            settled[way.attention].append(way.name)
            continue
        module = make(way.cache)
        try:
            graph = _build(module, positions, way)
        except ExportError as error:
            where = f" at {error.where}" if error.where else ""
            found = f" ({error.found})" if error.found else ""
            ways = refused.setdefault(f"{error.message}{where}{found}", [])
            ways.append(way.name)
            hint = hint or error.hint
            if isinstance(error, LooksAheadError):
                raise
            if isinstance(error, ExpertsError):
                break
            if isinstance(error, OwnCodeError):
                settled[way.attention] = ways
            continue
        graph.refused = _told(refused)
        return graph
    raise _cannot(type(module.network).__name__, _told(refused), hint or HINT)


def _told(refused: Mapping[str, list[str]]) -> list[str]:
    """Each reason once, with the ways that it stood in."""
    return [f"{', '.join(dict.fromkeys(ways))}: {reason}" for reason, ways in refused.items()]


def _cannot(architecture: str, refused: list[str], hint: str) -> ExportError:
    return ExportError(
        f"{architecture} cannot be captured as a graph", found="; ".join(refused), hint=hint
    )


def _build(module: TaskModule, positions: int, way: Way) -> Graph:
    how = way.name
    if way.attention == TORCH:
        _rehearse(module, positions)
    with torch.no_grad(), capturing(module.network, positions, attention=way.attention) as capture:
        capture.attention.generates = isinstance(module, DecoderModule)
        examples = module.example(EXAMPLE_SIZES)
        if how != "stamped":
            program = trace(module, examples, module.open_dims(), positions)
            _check_captured(capture, way)
            return _assemble(module, program, capture, {}, [], how)
        with stamping(module, module.network, capture) as layers:
            program = trace(module, examples, module.open_dims(), positions)
        chains = _chains(program, layers)
        if not chains:
            raise ExportError(NO_LAYERS)
        _check_captured(capture, way)
        calls = [call for chain in chains.values() for call in chain.calls]
        symbols = dims_of(program, module.open_dims())
        made = layer_functions(calls, capture, symbols, positions)
        return _assemble(module, program, capture, chains, made, how)


def _rehearse(module: TaskModule, positions: int) -> None:
    """See that the model calls torch's attention, as we capture it: run on tensors without data,
    which takes a tenth of a trace."""
    with torch.no_grad(), capturing(module.network, positions, attention=TORCH) as capture:
        try:
            module(tuple(module.example(EXAMPLE_SIZES)))
        except OwnCodeError:
            raise
        except Exception:  # whatever it is, the trace comes upon it and says so
            return
        if not capture.attention.calls:
            raise OwnCodeError(NOT_CALLED)


def _check_captured(capture: Capture, way: Way) -> None:
    """Our masks are for captured attention: code of the model's own misreads them. What is put in
    the cache is for our ops: code of the model's own loses it."""
    capture.states.settle()
    if capture.attention.calls:
        return
    if way.attention == TORCH:
        raise OwnCodeError(NOT_CALLED)
    if way.attention == NAME and (capture.attention.rules or capture.attention.fresh_keys):
        raise OwnCodeError(OWN_ATTENTION)


def _chains(program: ExportedProgram, layers: LayerTrace) -> dict[int, Chain]:
    """The chains that the program has an op for, by their number."""
    bodies = [m for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]
    numbers = {
        int(node.args[1])
        for body in bodies
        for node in body.graph.nodes
        if str(node.target) == "lepton.layers.default"
    }
    return {chain.number: chain for chain in layers.chains if chain.number in numbers}


def _assemble(
    module: TaskModule,
    program: ExportedProgram,
    capture: Capture,
    chains: Mapping[int, Chain],
    made: list[LayerFunction],
    how: str,
) -> Graph:
    check_masks(program.graph)
    builder = Builder()
    lifted, constants = program_parts(program, "network.")
    sites = _CallSites(chains, made)
    handlers: dict[str, Handler] = {**HANDLERS, "lepton.layers": sites}
    translator = Translator(
        builder,
        handlers,
        dims=dims_of(program, module.open_dims()),
        lifted=lifted,
        constants=constants,
    )
    inputs = _inputs(module)
    outputs = translator.run(program.graph, inputs)
    for value, name in zip(outputs, module.output_names, strict=True):
        value.name = name
        value.dtype = ir.DataType.FLOAT
        if name == "logits" and "logits_to_keep" in module.input_names:
            value.shape = _kept_shape(value)
    caches, states = name_kept(translator, sites.layers)
    # A pooler that no output asks for was traced all the same; its weights may be missing.
    builder.prune([*outputs, *presents_of(translator)])
    model = _model(builder, inputs, outputs, translator, [m.function for m in made])
    for value in inputs:
        if value.name in module.looked_at and all(n.op_type == "Shape" for n, _ in value.uses()):
            raise ExportError(f"the model does not look at {value.name}")
    values = _own_values(module.network, builder, capture)
    parameters = {
        p.value.name or "": (p.name, p.transform)
        for p in builder.parameters.values()
        if p.name not in values
    }
    named = {
        p.value.name or "": values[p.name] for p in builder.parameters.values() if p.name in values
    }
    kinds, rotary = len({id(m) for m in made}), capture.rotary
    foresees, near_to = rotary.foresees, rotary.near_to
    return Graph(model, parameters, named, caches, states, how, kinds, foresees, near_to)


class _CallSites:
    """Handler of ``lepton::layers``: each call is one of the layer's function with its weights.

    ``layers`` says of what the translator keeps which call it is of, all calls counted.
    """

    def __init__(self, chains: Mapping[int, Chain], made: Sequence[LayerFunction]) -> None:
        self._chains, rest = chains, iter(made)
        self.layers, self._calls = Layers(), 0
        self._made = {
            number: [(call, next(rest)) for call in chain.calls] for number, chain in chains.items()
        }

    def __call__(self, t: Translator, node: fx.Node) -> list[ir.Value]:
        number = int(node.args[1])  # type: ignore[arg-type]
        chain = self._chains[number]
        given = enumerate(node.args[0])  # type: ignore[arg-type]
        values = {Place(None, index): t.value(each) for index, each in given}
        for place, (call, layer) in enumerate(self._made[number]):
            inputs = [values[chain.sources[place][i]] for i in layer.activations]
            outputs = self._call(t, call.path, layer, inputs)
            values |= {Place(place, index): value for index, value in enumerate(outputs)}
        return [values[place] for place in chain.outputs]

    def _call(
        self, t: Translator, path: str, layer: LayerFunction, inputs: list[ir.Value]
    ) -> list[ir.Value]:
        for parameter in layer.parameters:
            value = parameter.value
            shape = [int(d) for d in value.shape]  # type: ignore[union-attr, arg-type]
            assert value.dtype is not None
            shared = _table_of(parameter.name) is not None
            name = parameter.name if shared else f"{path}.{parameter.name}"
            inputs.append(t.builder.parameter(name, shape, value.dtype, parameter.transform))
        kept = self._kept(t, layer)
        inputs += kept
        function = layer.function
        count = len(function.outputs)
        made = ir.node(
            function.name,
            inputs,
            domain=LAYER_DOMAIN,
            num_outputs=count,
            name=t.builder.unique(path),
        )
        t.builder.nodes.append(made)
        for value, formal in zip(made.outputs, function.outputs, strict=True):
            value.name = f"{path}.{formal.name}"
            value.type, value.shape = formal.type, formal.shape
        results = count - len(kept)
        presents = made.outputs[results:]
        for i in range(0, 2 * layer.caches, 2):
            t.caches.append((kept[i], kept[i + 1], presents[i], presents[i + 1]))
        t.windows += layer.windows
        rest = slice(2 * layer.caches, None)
        t.states += map(State, layer.states, kept[rest], presents[rest])
        self.layers.caches += [self._calls] * layer.caches
        self.layers.states += [self._calls] * len(layer.states)
        self._calls += 1
        return list(made.outputs)  # presents, too: later layers may read them

    @staticmethod
    def _kept(t: Translator, layer: LayerFunction) -> list[ir.Value]:
        """Values for what a layer keeps, as its function takes them: caches, then states."""
        count = 2 * layer.caches + len(layer.states)
        formal = layer.function.inputs[len(layer.function.inputs) - count :]
        number = len(t.caches) + len(t.states)
        return [
            ir.Value(
                name=f"{v.name}_{number}_{index}",
                type=ir.TensorType(ir.DataType.FLOAT),
                shape=v.shape,
            )
            for index, v in enumerate(formal)
        ]


def _inputs(module: TaskModule) -> list[ir.Value]:
    return [
        ir.Value(
            name=name,
            type=ir.TensorType(DTYPES[module.dtype_of(name)]),
            shape=ir.Shape(list(dims)),
        )
        for name, dims in zip(module.input_names, module.input_dims, strict=True)
    ]


def _kept_shape(value: ir.Value) -> ir.Shape | None:
    """The traced shape, but for what ``keep_last`` shortens."""
    if value.shape is None or len(value.shape) != 3:
        return value.shape
    kept = "kept" if str(value.shape[1]) == "sequence" else value.shape[1]
    return ir.Shape([value.shape[0], kept, value.shape[2]])


def _model(
    builder: Builder,
    inputs: list[ir.Value],
    outputs: list[ir.Value],
    translator: Translator,
    layers: list[ir.Function],
) -> ir.Model:
    past = [value for cache in translator.caches for value in cache[:2]]
    past += [state.past for state in translator.states]
    graph = ir.Graph(
        [*inputs, *past],
        [*outputs, *presents_of(translator)],
        nodes=builder.nodes,
        initializers=[p.value for p in builder.parameters.values()],
        opset_imports={"": OPSET, DOMAIN: 1, LAYER_DOMAIN: 1},
        name="main",
    )
    for value in inputs:
        if value.name == "logits_to_keep":  # optional: its default keeps every position
            value.const_value = ir.tensor(np.array(0, dtype=np.int64), name=value.name)
            graph.register_initializer(value)
    unique = list({id(f): f for f in layers}.values())
    bodies = [graph, *(f.graph for f in unique)]
    made = functions(node for body in bodies for node in body)
    return ir.Model(
        graph, ir_version=11, producer_name="lepton-compile", functions=[*unique, *made]
    )


def _own_values(network: nn.Module, builder: Builder, capture: Capture) -> dict[str, np.ndarray]:
    """Rotary tables and buffers: what the checkpoint does not have."""
    values: dict[str, np.ndarray] = {}
    buffers: Mapping[str, Tensor] = meta.real_buffers(network)
    persistent = network.state_dict(keep_vars=True)
    for parameter in builder.parameters.values():
        place = _table_of(parameter.name)
        if place is not None:
            table = capture.rotary.tables[place[0]][place[1]]
            values[parameter.name] = table
            parameter.value.shape = ir.Shape(table.shape)
        elif parameter.name in buffers and parameter.name not in persistent:
            values[parameter.name] = buffers[parameter.name].numpy()
    return values


def _table_of(name: str) -> tuple[int, int] | None:
    """(number, 0 for cos or 1 for sin) of the rotary table that a name stands for."""
    found = re.fullmatch(r"rotary\.(\d+)\.(cos|sin)", name)
    return (int(found[1]), int(found[2] == "sin")) if found else None
