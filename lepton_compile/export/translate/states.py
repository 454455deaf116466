"""The ops with a state (``capture/scans.py``) in the neutral dialect."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from torch import fx

from lepton_compile.export.dialect import DOMAIN

from .core import Handler, State, Translator

__all__ = ["HANDLERS"]


def _causal_conv(t: Translator, node: fx.Node) -> ir.Value:
    """x is (batch, channels, sequence), the weight (channels, kernel)."""
    x, weight, given = node.args
    channels, kernel = (int(size) for size in weight.meta["val"].shape)  # type: ignore[union-attr]
    past = _past(t, node, given, "conv", (channels, kernel - 1))
    made = t.builder.node(
        "CausalConvWithState",
        [t.value(x), _by_channel(t, weight), past],
        {"channels": channels},
        domain=DOMAIN,
        outputs=2,
        at=t.path(node),
    )
    if given is None:
        _keep(t, "conv", past, made.outputs[1])
    return made.outputs[0]


def _by_channel(t: Translator, weight: Any) -> ir.Value:
    """The weight as (channels, 1, kernel), which is how it is stored."""
    source = weight.args[0] if str(weight.target) == "aten.squeeze.dim" else None
    if t.is_weight(source):
        return t.value(source)
    return t.builder.op("Unsqueeze", [t.value(weight), t.builder.ints(1)], at=t.path(weight))


def _linear_attention(t: Translator, node: fx.Node) -> list[Any]:
    query, key, value, decay, beta, given, heads, scale = node.args
    widths = [int(x.meta["val"].shape[-1]) // int(heads) for x in (key, value)]  # type: ignore[union-attr, arg-type]
    past = _past(t, node, given, "recurrent", (int(heads), *widths))  # type: ignore[arg-type]
    inputs = [t.value(query), t.value(key), t.value(value), past, t.value(decay)]
    made = t.builder.node(
        "LinearAttention",
        inputs if beta is None else [*inputs, t.value(beta)],
        {"q_num_heads": heads, "kv_num_heads": heads, "scale": scale},
        domain=DOMAIN,
        outputs=2,
        at=t.path(node),
    )
    if given is None:
        _keep(t, "recurrent", past, made.outputs[1])
    return list(made.outputs)


def _past(t: Translator, node: fx.Node, given: Any, kind: str, shape: tuple[int, ...]) -> ir.Value:
    """The state before: one that the model gives, or else an input of the graph."""
    if given is not None:
        return t.value(given)
    batch = t.dim_names(node.args[0].meta["val"].shape[:1])[0]  # type: ignore[union-attr]
    return ir.Value(
        name=f"past_{kind}_{len(t.states)}",
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape([batch, *shape]),
    )


def _keep(t: Translator, kind: str, past: ir.Value, present: ir.Value) -> None:
    present.type, present.shape = past.type, past.shape
    t.states.append(State(kind, past, present))


def _new_mask(t: Translator, node: fx.Node) -> ir.Value:
    given = [t.value(argument) for argument in node.args]
    return t.builder.op("NewMask", given, domain=DOMAIN, at=t.path(node))


HANDLERS: dict[str, Handler] = {
    "lepton.causal_conv": _causal_conv,
    "lepton.linear_attention": _linear_attention,
    "lepton.new_mask": _new_mask,
}
