"""lower-rounded-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import LeptonPass, Tolerance
from lepton_passes.lowering.ort.native_linear import LowerNativeLinear
from lepton_passes.lowering.ort.rounded_attention import LowerRoundedAttention
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.support import Arrays, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

# Values have 63 levels each way.
SEVEN = Tolerance(error=0.02, cosine=0.9995)
CACHED = """ai.lepton.cpu.GroupQueryAttention <num_heads = 2, kv_num_heads = 1, scale = 0.1,
    do_rotary = 0, rotary_interleaved = 0, local_window_size = -1, softcap = 0.0, epsilon = 0.0>"""
PLAIN = "ai.lepton.cpu.MultiHeadAttention <num_heads = 2, scale = 0.1, unidirectional = 0>"
TOKENS = 12


def _cached(width: int = 64) -> ir.Model:
    text = f"""main (float[b, s, 64] x, float[b, 1, p, {width}] pk, float[b, 1, p, {width}] pv,
          int32[b] lengths, int32 total) => (y, present_k, present_v) {{
      t = Transpose <perm = [1, 0]> (w)
      qkv = MatMul (x, t)
      y, present_k, present_v = {CACHED} (qkv, , , pk, pv, lengths, total)
    }}"""
    return load(text, {"w": random(4 * width, 64, seed=1, scale=0.2)})


def _feeds(width: int = 64) -> Arrays:
    return {
        "x": random(1, TOKENS, 64),
        "pk": np.zeros((1, 1, TOKENS, width), np.float32),
        "pv": np.zeros((1, 1, TOKENS, width), np.float32),
        "lengths": np.full(1, TOKENS - 1, np.int32),
        "total": np.array(TOKENS, np.int32),
    }


def _encoder(packed: bool, width: int = 64) -> ir.Model:
    parts = ("qkv",) if packed else ("q", "k", "v")
    columns = 2 * width * (3 if packed else 1)
    made = "\n".join(
        f"t_{part} = Transpose <perm = [1, 0]> (w_{part}) {part} = MatMul (x, t_{part})"
        for part in parts
    )
    text = f"""main (float[b, s, 64] x) => (y) {{
      {made}
      y = {PLAIN} ({", ".join(parts)})
    }}"""
    weights = {f"w_{p}": random(columns, 64, seed=n, scale=0.2) for n, p in enumerate(parts)}
    model = load(text, weights)
    for node in model.graph:
        if node.op_type == "MatMul":
            node.outputs[0].shape = ir.Shape(["b", "s", columns])
    return model


def _lowered(model: ir.Model, weight: LeptonPass) -> ir.Model:
    weight(model)
    LowerNativeLinear()(model)
    return model


def _rounded(model: ir.Model) -> list[int]:
    return [n.attributes.get_int("rounded", 0) for n in model.graph if "Attention" in n.op_type]


def test_beside_layers_of_4_bits() -> None:
    model = _lowered(_cached(), WeightInt4())
    assert check(LowerRoundedAttention(), model, _feeds(), SEVEN).fired == 1
    assert ops(model) == ["QuantizedLinear", "GroupQueryAttention"]
    assert _rounded(model) == [1]


@pytest.mark.parametrize("packed", [True, False])
def test_beside_layers_of_7_bits(packed: bool) -> None:
    model = _lowered(_encoder(packed), WeightInt8())
    feeds = {"x": random(2, TOKENS, 64)}
    assert check(LowerRoundedAttention(), model, feeds, SEVEN).fired == 1
    assert ops(model) == [*["QuantizedLinear"] * (1 if packed else 3), "MultiHeadAttention"]
    assert _rounded(model) == [1]


@pytest.mark.parametrize(("width", "fired"), [(64, 1), (32, 1), (16, 0)])
@pytest.mark.parametrize("packed", [True, False])
def test_the_result_tells_the_width_too(packed: bool, width: int, fired: int) -> None:
    """Layers of an encoder that were joined make a value without a shape."""
    model = _lowered(_encoder(packed, width), WeightInt8())
    *layers, attention = model.graph
    for node in layers:
        node.outputs[0].shape = None
    attention.outputs[0].shape = ir.Shape(["b", "s", 2 * width])
    rounded = LowerRoundedAttention()
    rounded(model)
    assert (rounded.fired, _rounded(model)) == (fired, [fired])


def test_a_model_without_such_layers_is_not_a_matter() -> None:
    model, rounded = _cached(), LowerRoundedAttention()
    rounded(model)
    assert (rounded.fired, reasons(rounded), _rounded(model)) == (0, [], [0])


def test_layers_of_8_bits_round_too() -> None:
    model, rounded = _cached(), LowerRoundedAttention()
    model.graph.inputs[1].name = "past_key_values.0.key"  # of a decoder, which keeps 8 bits
    model = _lowered(model, WeightInt8())
    (layer,) = (node for node in model.graph if node.op_type == "QuantizedLinear")
    assert layer.attributes["bits"].as_int() == 8
    rounded(model)
    assert (rounded.fired, _rounded(model)) == (1, [1])


def _beside_fp32() -> ir.Model:
    """Attention in a layer of fp32, in a model with layers of 4 bits."""
    layer = """<domain: "ai.lepton.layer", opset_import: ["" : 24, "ai.lepton.cpu" : 1]>
      layer (q, k, v) => (y) { y = %s (q, k, v) }"""
    text = f"""main (float[b, s, 64] x) => (y) {{
      t = Transpose <perm = [1, 0]> (w)
      q = MatMul (x, t)
      y = ai.lepton.layer.layer (q, q, q)
    }}
    {layer % PLAIN}"""
    return _lowered(load(text, {"w": random(128, 64)}), WeightInt4())


def _unknown() -> ir.Model:
    model = _lowered(_encoder(packed=False), WeightInt4())
    attention = next(n for n in model.graph if n.op_type == "MultiHeadAttention")
    query = attention.inputs[0]
    assert query is not None
    query.shape = None
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (_beside_fp32, "no layer beside it rounds what it reads"),
        (_unknown, "the width of heads is not known"),
        (lambda: _lowered(_cached(16), WeightInt4()), "heads of 16 are not within 32 and 512"),
        (lambda: _lowered(_cached(576), WeightInt4()), "heads of 576 are not within 32 and 512"),
        (
            lambda: _lowered(_encoder(packed=True, width=16), WeightInt4()),
            "heads of 16 are not within 32 and 512",
        ),
    ],
)
def test_refuses(model: object, reason: str) -> None:
    assert callable(model)
    made = model()
    rounded = LowerRoundedAttention()
    rounded(made)
    assert (rounded.fired, reasons(rounded)) == (0, [reason])
    assert not any(_rounded(made))
