"""lower-native-linear-attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.lowering.ort.native_linear_attention import LowerNativeLinearAttention
from lepton_plugins.linear_attention.spec import MOST_DEPTH
from lepton_plugins.spec import CPU_DOMAIN
from tests.passes.support import LAYER, check, load, ops, random, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

HEADS, KEY, VALUE = 4, 8, 5
OP = f"""y, present = ai.lepton.LinearAttention
    <q_num_heads = {HEADS}, kv_num_heads = {HEADS}, scale = 0.7>"""


def _text(
    decay: int, beta: str = "", before: str = "", query: str = "q", heads: int = HEADS
) -> str:
    width = heads * KEY
    more = f", float[b, s, {HEADS}] {beta}" if beta else ""
    return f"""main (float[b, s, {width}] q, float[b, s, {width}] k, float[b, s, {HEADS * VALUE}] v,
        float[b, {HEADS}, {KEY}, {VALUE}] past, float[b, s, {decay}] g{more}) => (y, present) {{
        {before} {OP} ({query}, {query.replace("q", "k")}, v, past, g{f", {beta}" if beta else ""})
    }}"""


def _feeds(
    tokens: int, decay: int = HEADS, beta: str = "", heads: int = HEADS
) -> dict[str, np.ndarray]:
    shapes = {"q": heads * KEY, "k": heads * KEY, "v": HEADS * VALUE, "g": decay}
    feeds = {n: random(2, tokens, w, seed=i) * 0.3 for i, (n, w) in enumerate(shapes.items())}
    feeds["g"] = -np.abs(feeds["g"])
    feeds["past"] = random(2, HEADS, KEY, VALUE, seed=9)
    return feeds | ({beta: np.abs(random(2, tokens, HEADS, seed=8))} if beta else {})


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("beta", ["", "beta"], ids=["gated", "gated delta"])
@pytest.mark.parametrize("decay", [HEADS, HEADS * KEY], ids=["by head", "by row"])
def test_one_kernel(tokens: int, beta: str, decay: int) -> None:
    model = load(_text(decay, beta))
    feeds = _feeds(tokens, decay, beta)
    assert check(LowerNativeLinearAttention(), model, feeds, CLOSE).fired == 1
    assert ops(model) == ["LinearAttention"]
    (node,) = model.graph
    assert node.domain == CPU_DOMAIN
    assert set(node.attributes) == {"scale"}


def _repeated(name: str) -> str:
    """Text of a value whose heads are repeated."""
    return f"""{name}4 = Reshape ({name}, s4) {name}5 = Unsqueeze ({name}4, ax)
        {name}s = Shape <start = 0, end = 2> ({name}) {name}t = Concat <axis = 0> ({name}s, tail)
        {name}e = Expand ({name}5, {name}t) {name}r = Reshape ({name}e, flat)"""


def _shared(heads: int, *, spread: tuple[int, ...] | None = None) -> ir.Model:
    """``heads`` keys and queries, each repeated, or ``spread``; with the shapes of a capture."""
    times = HEADS // heads
    tail, axis = ([heads, times, KEY], 3) if spread is None else ([*spread, KEY], 2)
    four = [0, 0, heads, KEY] if spread is None else [0, 0, KEY]
    constants = {"s4": four, "ax": [axis], "tail": tail, "flat": [0, 0, HEADS * KEY]}
    before = "\n".join(
        f"{name} = Constant <value_ints = {value}> ()" for name, value in constants.items()
    )
    before += _repeated("q") + _repeated("k")
    model = load(_text(HEADS, before=before, query="qr", heads=heads))
    sizes = {"5": [*tail], "e": [*tail], "r": [HEADS * KEY]}
    sizes["5"][-2] = 1
    for node in model.graph:
        for value in node.outputs:
            name = value.name or ""
            if name[:1] in "qk" and name[1:] in sizes:
                value.shape = ir.Shape(["b", "s", *sizes[name[1:]]])
    return model


@pytest.mark.parametrize("heads", [1, 2])
def test_heads_that_are_shared_are_not_repeated(heads: int) -> None:
    model = _shared(heads)
    feeds = _feeds(5, heads=heads)
    assert check(LowerNativeLinearAttention(), model, feeds, CLOSE).fired == 1
    assert "Expand" not in ops(model)
    assert ops(model).count("Reshape") == 4


def test_one_head_for_all() -> None:
    """Mamba: keys and queries without an axis for heads."""
    model = _shared(1, spread=(HEADS,))
    assert check(LowerNativeLinearAttention(), model, _feeds(5, heads=1), CLOSE).fired == 1
    assert "Expand" not in ops(model)


def test_heads_in_another_order_stay_as_they_are() -> None:
    """Tiled, not repeated: 0 1 0 1 in place of 0 0 1 1."""
    model = _shared(2)
    tail = next(n for n in model.graph if n.outputs[0].name == "tail")
    tail.attributes["value_ints"] = ir.AttrInt64s("value_ints", [2, 2, KEY])
    axis = next(n for n in model.graph if n.outputs[0].name == "ax")
    axis.attributes["value_ints"] = ir.AttrInt64s("value_ints", [2])
    for node in model.graph:
        for value in node.outputs:
            if value.name in ("q5", "k5"):
                value.shape = ir.Shape(["b", "s", 1, 2, KEY])
    assert check(LowerNativeLinearAttention(), model, _feeds(5, heads=2), CLOSE).fired == 1
    assert ops(model).count("Expand") == 2


def test_in_a_layer() -> None:
    text = f"""
main (float[b, s, 32] x, float[b, s, 20] v, float[b, 4, 8, 5] past, float[b, 4, 8, 5] past1,
      float[b, s, 4] g)
  => (float[b, s, 20] y, float[b, 4, 8, 5] present, float[b, 4, 8, 5] present1)
<float[b, s, 20] h> {{
  [l0] h, present = ai.lepton.layer.block (x, v, g, past)
  [l1] y, present1 = ai.lepton.layer.block (x, h, g, past1)
}}
{LAYER}
block (x, v, g, past) => (y, present) {{ {OP} (x, x, v, past, g) }}"""
    model = load(text)
    feeds = {n: a for n, a in _feeds(5).items() if n not in "qk"}
    feeds |= {"x": random(2, 5, 32) * 0.3, "past1": random(2, 4, 8, 5, seed=7)}
    assert check(LowerNativeLinearAttention(), model, feeds, CLOSE).fired == 2
    assert {node.domain for f in model.functions.values() for node in f} == {CPU_DOMAIN}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("d", "the length of a key is unknown"),
        (str(MOST_DEPTH + 1), f"the length of a key is {MOST_DEPTH + 1}, above {MOST_DEPTH}"),
    ],
)
def test_refuses(key: str, reason: str) -> None:
    text = f"""main (float[b, s, m] q, float[b, s, m] k, float[b, s, n] v,
        float[b, {HEADS}, {key}, {VALUE}] past, float[b, s, {HEADS}] g) => (y, present) {{
        {OP} (q, k, v, past, g)
    }}"""
    model = load(text)
    lowering = LowerNativeLinearAttention()
    lowering(model)
    assert lowering.fired == 0
    assert reasons(lowering) == [reason]
    assert ops(model) == ["LinearAttention"]
    assert {node.domain for node in model.graph} == {"ai.lepton"}
