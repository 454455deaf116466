"""Lower convolutions with a state to our own CPU kernel, which has the channels last.

    Before   Transpose -> ai.lepton::CausalConvWithState -> Add(bias) -> SiLU -> Transpose
    After    y, present = CausalConv(x, taps, past, bias)

Models turn the channels in front of the sequence and back; both turns go away, also where a Split
or gates stand between them and the convolution (LFM2). 512 tokens of 6,144 channels take a fifth of
the time that onnxruntime's kernel takes, without the turns that it would need.
Refuses: a weight that is not constant, or not in fp32; a window longer than the kernel takes.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lepton_passes.body import DIALECT, Body
from lepton_passes.contract import LeptonPass
from lepton_passes.lowering.ort._channels_last import TURN, cancel_turns, turned_shape
from lepton_passes.match import ints_of, is_op, made_by, only_reader, readers
from lepton_passes.tensors import StreamedTensor
from lepton_plugins.convolution.spec import MOST_TAPS
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeCausalConv"]


class LowerNativeCausalConv(LeptonPass):
    """Lower convolutions with a state to a kernel of our own."""

    name = "lower-native-causal-conv"
    summary = "Causal convolutions with a state to a kernel of our own"
    changes_numbers = True
    counts_as = "causal_conv"

    def rewrite(self, body: Body) -> None:
        before = self.fired
        for node in body.nodes("CausalConvWithState", domain=DIALECT):
            reason = _refuses(body, node)
            if reason is not None:
                self.refuse(body, node, reason)
                continue
            _lower(body, node)
            self.fire(body)
        if self.fired > before:
            cancel_turns(body)


def _refuses(body: Body, node: ir.Node) -> str | None:
    weights = body.weights(node.inputs[1])
    if not weights:
        return "the weight of the convolution is not constant"
    if any(weight.dtype != ir.DataType.FLOAT for weight in weights):
        return "the weight of the convolution is not in fp32"
    if weights[0].shape.numpy()[2] > MOST_TAPS:
        return f"the window of the convolution is longer than {MOST_TAPS}"
    return None


def _lower(body: Body, node: ir.Node) -> None:
    x, weight, past = node.inputs
    assert weight is not None
    bias, biased = _bias(body, node)
    activated = _silu(biased)
    taps = body.derive([weight], f"{weight.name}_taps", lambda t: _taps(t[0]))
    turned = body.emit(node, "Transpose", [x], {"perm": TURN}).outputs[0]
    made = body.emit(
        node,
        "CausalConv",
        [turned, taps, past, bias],
        {"activation": int(activated is not None)},
        domain=CPU_DOMAIN,
        outputs=2,
    )
    result = activated or biased
    for value, like in ((turned, x), (made.outputs[0], result)):
        if like is not None:
            value.type, value.shape = like.type, turned_shape(like)
    back = body.emit(node, "Transpose", [made.outputs[0]], {"perm": TURN})
    body.replace(result, back.outputs[0])
    body.replace(node.outputs[1], made.outputs[1])


def _taps(weight: ir.TensorProtocol) -> ir.TensorProtocol:
    """(channels, 1, kernel) as (kernel, channels)."""
    channels, _, kernel = (int(size) for size in weight.shape.numpy())

    def read(start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(weight.numpy()[:, 0, start:stop].T)

    return StreamedTensor(f"{weight.name}_taps", weight.dtype, (kernel, channels), read)


def _bias(body: Body, node: ir.Node) -> tuple[ir.Value | None, ir.Value]:
    """A vector that is added to the channels, and the sum; else the result as it is."""
    y, channels = node.outputs[0], node.attributes.get_int("channels")
    add = only_reader(y, "Add")
    if add is None:
        return None, y
    column = made_by(add.inputs[1] if add.inputs[0] is y else add.inputs[0], "Unsqueeze")
    if column is None or ints_of(body, column.inputs[1]) not in ([1], [-1]):
        return None, y
    vector = column.inputs[0]
    tensors = body.weights(vector)
    fits = [t.dtype == ir.DataType.FLOAT and list(t.shape) == [channels] for t in tensors or []]
    return (vector, add.outputs[0]) if fits and all(fits) else (None, y)


def _silu(x: ir.Value) -> ir.Value | None:
    """x * Sigmoid(x), where nothing else reads ``x``."""
    users = list(x.consumers())
    sigmoid = next((user for user in readers(x) if is_op(user, "Sigmoid")), None)
    if x.is_graph_output() or sigmoid is None or len(users) != 2:
        return None
    product = only_reader(sigmoid.outputs[0], "Mul")
    if product is None or set(users) != {sigmoid, product}:
        return None
    return product.outputs[0]
