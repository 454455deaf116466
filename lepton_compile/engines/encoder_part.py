"""An encoder-decoder as two graphs: one that runs once for a text, one that runs for each token.

What is computed of the source alone is told from where values come from: the encoder's are the
nodes that only its inputs lead to, and so are the keys and values that each layer of the decoder
makes of its output. Numbers that the decoder takes from there go out of the one graph and into the
other; masks and shapes, which cost less to make than to keep, are made once more.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.convenience import extract

from lepton_passes.origin import from_file

__all__ = ["ENCODER_INPUT", "is_encoder_decoder", "split"]

ENCODER_INPUT = "encoder_"
"""How the names of inputs begin that the encoder reads."""


def is_encoder_decoder(model: ir.Model) -> bool:
    """Whether a graph reads one text and writes another. Of a file names do not say so: it may be a
    decoder alone, and what it gives need not come out of one of two parts."""
    return not from_file(model) and any(map(_is_source, model.graph.inputs))


def split(model: ir.Model) -> tuple[ir.Model, ir.Model]:
    """The encoder and the decoder of a graph without functions, as copies that share its tensors.

    An output of the encoder is the input of the decoder that is called the same.
    """
    graph = model.graph
    crossing, needed = _crossing(graph)
    for number, value in enumerate(crossing):
        value.name = f"crossing.{number}"
    source = [value for value in graph.inputs if _is_source(value)]
    own = [value for value in graph.inputs if not _is_source(value) or value in needed]
    encoder = extract(graph, source, crossing)
    decoder = extract(graph, [*own, *crossing], list(graph.outputs))
    return _model(model, encoder), _model(model, decoder)


def _is_source(value: ir.Value) -> bool:
    return str(value.name).startswith(ENCODER_INPUT)


def _crossing(graph: ir.Graph) -> tuple[list[ir.Value], set[ir.Value]]:
    """Values that the decoder takes from the encoder, in order; and all that it reads."""
    encoder = _encoder_nodes(graph)
    crossing, read = set(), set()
    waiting = list(graph.outputs)
    while waiting:
        value = waiting.pop()
        if value in read:
            continue
        read.add(value)
        node = value.producer()
        if node in encoder and value.dtype is not None and value.dtype.is_floating_point():
            crossing.add(value)
        elif node is not None:
            waiting += [given for given in node.inputs if given is not None]
    return [value for node in graph for value in node.outputs if value in crossing], read


def _encoder_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Nodes that the source leads to, and nothing else that is given."""
    led_to = {value: _is_source(value) for value in graph.inputs}
    found = set()
    for node in graph:
        given = [led_to[value] for value in node.inputs if value in led_to]
        led_to |= dict.fromkeys(node.outputs, all(given)) if given else {}
        if given and all(given):
            found.add(node)
    return found


def _model(whole: ir.Model, graph: ir.Graph) -> ir.Model:
    """A part as a model; its weights in the order of the whole, which a set of them has lost."""
    weights = [
        graph.initializers.pop(n) for n in [*whole.graph.initializers] if n in graph.initializers
    ]
    for weight in weights:
        graph.initializers[str(weight.name)] = weight
    return ir.Model(graph, ir_version=whole.ir_version, producer_name=whole.producer_name)
