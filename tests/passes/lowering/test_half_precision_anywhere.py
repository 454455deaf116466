"""Half precision in graphs that nobody wrote: types stay sound and numbers near, whatever meets."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_passes.body import bodies, sweep
from lepton_passes.contract import ROUNDING
from lepton_passes.dtypes import HALVES
from lepton_passes.emulation import Emulation
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from tests.passes.support import LAYER, assert_close, load, ops, random, run

FLOAT, FP16, BF16 = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16

# Of values (2, 4, 8): {y} is made of {a} and {b}, and moves no more than they do.
STEPS = {
    "product": "{y} = MatMul ({a}, w)",
    "gelu": "{y} = Gelu ({a})",
    "sum": "{y}s = Add ({a}, {b})\n{y}h = Constant <value_float = 0.5> ()\n{y} = Mul ({y}s, {y}h)",
    "larger": "{y} = Max ({a}, {b})",
    "turned": "{y} = Tanh ({a})",
    "small and back": "{y}e = Constant <value_floats = [1e-9]> ()\n{y}s = Mul ({a}, {y}e)\n"
    "{y} = Div ({y}s, {y}e)",
    "chosen": "{y}c = Greater ({a}, {b})\n{y} = Where ({y}c, {a}, {b})",
    "masked": "{y}l = Constant <value_float = -0.7> ()\n{y} = Where (seen, {a}, {y}l)",
    "moved": "{y}t = Transpose <perm = [1, 0, 2]> ({a})\n{y} = Transpose <perm = [1, 0, 2]> ({y}t)",
    "reshaped": "{y}s = Shape ({a})\n{y} = Reshape ({b}, {y}s)",
    "cut": "{y}l, {y}r = Split <axis = 2, num_outputs = 2> ({a})\n"
    "{y} = Concat <axis = 2> ({y}r, {y}l)",
    "ordered": "{y}n = Constant <value_ints = [8]> ()\n{y}v, {y}i = TopK ({a}, {y}n)\n"
    "{y}j = Abs ({y}i)\n{y} = GatherElements <axis = -1> ({a}, {y}j)",
    "counted": "{y}f = Cast <to = 1> (number)\n{y} = Mul ({a}, {y}f)",
    "picked": "{y}p = Gather (table, number)\n{y}q = Squeeze ({y}p, two)\n{y} = Add ({y}q, {a})",
    "norm": "{y} = RMSNormalization <axis = -1, epsilon = 1e-6> ({a}, g)",
    "layer norm": "{y} = LayerNormalization <axis = -1> ({a}, g)",
    "mean": "{y}n, {y}m = LayerNormalization <axis = -1> ({a}, g)\n{y} = Sub ({b}, {y}m)",
    "softmax": "{y}c = Constant <value_float = 8.0> ()\n{y}p = Softmax ({a})\n"
    "{y} = Mul ({y}c, {y}p)",
    "apart": "{y}m = ReduceMean <keepdims = 1> ({a}, two)\n{y} = Sub ({b}, {y}m)",
    "quotient": "{y}o = Constant <value_float = 1.0> ()\n{y}a = Abs ({a})\n"
    "{y}d = Add ({y}a, {y}o)\n{y} = Div ({b}, {y}d)",
    "larger picture": "{y}i = Unsqueeze ({a}, two)\n"
    "{y}z = Constant <value_floats = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]> ()\n"
    "{y}s = Constant <value_floats = [1.0, 1.0, 1.0, 1.0]> ()\n"
    '{y}r = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize">'
    " ({y}i, {y}z, {y}s)\n{y} = Squeeze ({y}r, two)",
    "branched": "{y} = If (always) <"
    "then_branch = left () => (float[2, 4, 8] {y}l) {{ {y}l = MatMul ({a}, w) }},"
    "else_branch = right () => (float[2, 4, 8] {y}r) {{ {y}r = Identity ({b}) }}>",
}
WEIGHTS = {
    "w": random(8, 8, seed=1, scale=0.3),
    "g": 1 + random(8, seed=2, scale=0.1),
    "table": random(2, 8, seed=3),
    "two": np.array([2]),
}
FEEDS = {
    "x": random(2, 4, 8),
    "seen": random(2, 4, 8, seed=4) > 0,
    "number": np.arange(8).reshape(2, 4, 1) % 2,
    "always": np.array(True),
}
GIVEN = "seen, number, always, w, g, table, two"
ENTRY = """main (float[2, 4, 8] x, bool[2, 4, 8] seen, int64[2, 4, 1] number, bool always)
  => (float[2, 4, 8] y)"""
HALF_OPS = ("MatMul", "Gelu", "Resize")
WIDE_OPS = ("ReduceMean", "Div")
ISLANDS = ("RMSNormalization", "LayerNormalization", "Softmax")


def graph(steps: list[tuple[str, int]], *, layered: bool) -> ir.Model:
    """Each step of the one before it and of any other; as a layer, called twice."""
    made, lines = ["v"], ["v = MatMul (x, w)"]
    for number, (name, other) in enumerate(steps):
        a, b = made[-1], made[other % len(made)]
        made.append(f"v{number}")
        lines.append(STEPS[name].format(y=made[-1], a=a, b=b))
    body = "\n".join([*lines, f"y = Identity ({made[-1]})"])
    if layered:
        text = f"""{ENTRY} {{
            [layers0] h = ai.lepton.layer.block (x, {GIVEN})
            [layers1] y = ai.lepton.layer.block (h, {GIVEN})
        }}
        {LAYER}
        block (x, {GIVEN}) => (y) {{
            {body}
        }}"""
    else:
        text = f"{ENTRY} {{\n{body}\n}}"
    used = {n: a for n, a in WEIGHTS.items() if layered or re.search(rf"\b{n}\b", text)}
    model = load(text, used)
    sweep(model)
    return model


def casts(model: ir.Model) -> list[tuple[ir.Value, ir.Value]]:
    """What casts of floating-point numbers read, and what they give."""
    nodes = [node for body in bodies(model) for node in body.nodes("Cast")]
    pairs = [(node.inputs[0], node.outputs[0]) for node in nodes]
    return [(value, out) for value, out in pairs if value and value.dtype in (FLOAT, *HALVES)]


def check_casts(model: ir.Model) -> None:
    """None is one too many."""
    found = casts(model)
    given = {out for _, out in found}
    assert len({(value, out.dtype) for value, out in found}) == len(found), "the same cast twice"
    for value, out in found:
        assert value.dtype != out.dtype, "a cast of nothing"
        assert value not in given, "a cast of a cast"
        assert out.shape == value.shape


def check_types(model: ir.Model, half: ir.DataType, *, islands: bool) -> int:
    """What computes in which type; how many nodes compute in half precision, layer by layer."""
    count = 0
    for body in bodies(model):
        for node in body.nodes():
            types = {value.dtype for value in (*node.inputs[:1], *node.outputs[:1]) if value}
            assert node.op_type not in HALF_OPS or types == {half}
            wide = node.op_type in (*WIDE_OPS, *(ISLANDS if islands else ()))
            assert not wide or types == {FLOAT}
            if node.op_type == "Resize":  # whose region kernels read as fp32, whatever ONNX lets be
                assert [value.dtype for value in node.inputs[1:] if value] == [FLOAT, FLOAT]
            made = node.domain or node.op_type in ("Cast", "Constant", "If")
            values = (*node.inputs, *node.outputs)
            count += 0 if made else body.times * any(v and v.dtype == half for v in values)
    return count


@settings(max_examples=80, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 20)),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from([FP16, BF16]),
)
def test_any_graph(
    steps: list[tuple[str, int]], layered: bool, islands: bool, dtype: ir.DataType
) -> None:
    model = graph(steps, layered=layered)
    before = run(model, FEEDS)
    done = LowerHalfPrecision(dtype, islands=islands)
    assert done(model).modified
    onnx.checker.check_model(ir.to_proto(model), full_check=not layered)
    assert_close(before, run(Emulation()(model), FEEDS), ROUNDING[dtype])
    if dtype == FP16:
        assert_close(before, run(model, FEEDS), ROUNDING[dtype])
    check_casts(model)
    assert done.fired == check_types(model, dtype, islands=islands)
    found = ops(model)
    LowerHalfPrecision(dtype, islands=islands)(model)
    assert ops(model) == found


# What stands between two ops, by what is cast where.
BETWEEN = {
    "what moves numbers between wide ops": (
        "p = Softmax (x)\nt = Transpose <perm = [1, 0]> (p)\ny = ReduceSum (t)",
        "Softmax Transpose ReduceSum",
    ),
    "what computes between wide ops": (
        "p = Softmax (x)\nt = Mul (p, g)\ny = RMSNormalization (t, g)",
        "Softmax Mul RMSNormalization",
    ),
    "what a half reads, too": (
        "p = Softmax (x)\nt = Mul (p, g)\ny = MatMul (t, w)",
        "Softmax Cast Mul MatMul Cast",
    ),
    "where a half meets a wide one": (
        "h = MatMul (x, w)\np = Softmax (h)\nt = Add (h, p)\ny = ReduceSum (t)",
        "Cast MatMul Cast Softmax Cast Add Cast ReduceSum",
    ),
    "halves that move before a wide op": (
        "h = MatMul (x, w)\nt = Transpose <perm = [1, 0]> (h)\ny = ReduceSum (t)",
        "Cast MatMul Transpose Cast ReduceSum",
    ),
    "a weight that moves": ("t = Transpose <perm = [1, 0]> (w)\ny = MatMul (x, t)",
        "Transpose Cast MatMul Cast"),
    "what is picked between wide ops": (
        "p = Softmax (x)\nt = Gather (p, rows)\ny = ReduceSum (t)",
        "Softmax Gather ReduceSum",
    ),
    "a constant that moves": (
        "h = MatMul (x, w)\nc = Constant <value_float = 2.0> ()\ns = Shape (h)\n"
        "e = Expand (c, s)\nm = Mul (h, e)\ny = Gelu (m)",
        "Cast MatMul Shape Expand Mul Gelu Cast",
    ),
    "a table of angles, whatever moves it": (
        "c = Slice (angles, none, few)\nu = Unsqueeze (c, none)\nh = Unsqueeze (x, none)\n"
        "r = RotaryEmbedding <num_heads = 2> (h, u, u)\ny = Squeeze (r, none)",
        "Slice Unsqueeze Unsqueeze RotaryEmbedding Squeeze",
    ),
    "a whole number that a half reads": (
        "n = Cast <to = 1> (number)\nh = MatMul (n, w)\ny = Gelu (h)",
        "Cast MatMul Gelu Cast",
    ),
    "a whole number that both read": (
        "n = Cast <to = 1> (number)\nh = MatMul (n, w)\ns = ReduceSum (n)\ny = Add (h, s)",
        "Cast Cast MatMul ReduceSum Cast Add Cast",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_nothing_is_narrowed_and_widened_again(name: str) -> None:
    text, expected = BETWEEN[name]
    entry = "main (float[8, 8] x, int64[8, 8] number, int64[c] rows) => (float[a, b] y)"
    more = {"angles": random(9, 2), "none": np.array([0]), "few": np.array([8])}
    weights = {n: a for n, a in {**WEIGHTS, **more}.items() if re.search(rf"\b{n}\b", text)}
    model = load(f"{entry} {{\n{text}\n}}", weights)
    feeds = {"x": random(8, 8), "number": np.arange(64).reshape(8, 8), "rows": np.array([2, 5])}
    before = run(model, feeds)
    LowerHalfPrecision(FP16)(model)
    assert " ".join(ops(model)) == expected
    assert_close(before, run(model, feeds), ROUNDING[FP16])


STATES = {"past_recurrent.0": FLOAT, "past_conv.0": FP16, "past_key_values.0.key": FP16}
STEP = """h = MatMul (x, w)
  r = Add (recurrent, h)
  c = Add (conv, h)
  k = Add (key, h)"""
GIVES = "=> (float[b, 8] y, float[b, 8] r, float[b, 8] c, float[b, 8] k)"


@pytest.mark.parametrize("layered", [False, True])
def test_a_recurrent_state_stays_wide_and_no_other(layered: bool) -> None:
    """In and out, and on its way through a layer: it is a sum over all tokens."""
    entry = f"""main (float[b, 8] x, float[b, 8] recurrent, float[b, 8] conv, float[b, 8] key)
                {GIVES}"""
    call = "[layers0] y, r, c, k = ai.lepton.layer.block (x, recurrent, conv, key, w)"
    layer = f"{LAYER} block (x, recurrent, conv, key, w) => (y, r, c, k) {{ {STEP} y = Gelu (h) }}"
    text = f"{entry} {{ {call} }} {layer}" if layered else f"{entry} {{ {STEP} y = Gelu (h) }}"
    model = load(text, {"w": WEIGHTS["w"]})
    names = [name.replace("past", "present") for name in STATES]
    names[-1] = "present.0.key"
    for value, name in zip(model.graph.inputs[1:], STATES, strict=True):
        value.name = name
    for value, name in zip(model.graph.outputs[1:], names, strict=True):
        value.name = name
    feeds = {name: random(3, 8, seed=n) for n, name in enumerate(["x", *STATES])}
    before = run(model, feeds)
    LowerHalfPrecision(FP16)(model)
    types = [FLOAT, *STATES.values()]
    assert [value.dtype for value in model.graph.inputs] == types
    assert [value.dtype for value in model.graph.outputs] == types
    assert [value.name for value in model.graph.outputs] == ["y", *names]
    for function in model.functions.values():
        assert [value.dtype for value in function.inputs[1:4]] == types[1:]
        assert [value.dtype for value in function.outputs[1:]] == types[1:]
    given = {n: a.astype(np.float16) if STATES.get(n) == FP16 else a for n, a in feeds.items()}
    found = run(model, given)
    assert_close(before, [array.astype(np.float32) for array in found], ROUNDING[FP16])


GRID = f"""main (float[b, 8] x) => (float[b, 8] y) {{
  step = Constant <value_float = 0.25> ()
  zero = Constant <value = int8 {{0}}> ()
  [layers0] h = ai.lepton.layer.block (x, one)
  q = QuantizeLinear (h, step, zero)
  y = DequantizeLinear (q, step, zero)
}}
{LAYER}
block (x, one) => (h) {{ h = Mul (x, one) }}"""


def test_a_value_may_move_by_a_step_where_there_are_steps() -> None:
    """What the check after each pass lets through: a whole step is more than a rounding."""
    model = load(GRID, {"one": np.ones(8, np.float32)})
    feeds = {"x": np.array([[3, -3, 0.37499, 1, 2, -1, -2, 1]], np.float32)}
    before = run(model, feeds)
    done = LowerHalfPrecision(FP16)
    done(model)
    after = run(Emulation()(model), feeds)
    assert np.abs(after[0] - before[0]).max() == 0.25
    for precision in ("fp32", "int8", "int4"):
        assert_close(before, after, done.tolerances[precision])
    smooth = load("main (float[b, 8] x) => (float[b, 8] y) { y = Gelu (x) }")
    done(smooth)
    plain = LowerHalfPrecision(FP16)
    plain(smooth)
    assert plain.tolerances == dict.fromkeys(done.tolerances, ROUNDING[FP16])


def test_halves_of_a_file_are_widened_where_accuracy_asks() -> None:
    """Constants, too, of a model that came in half precision."""
    model = load(
        """main (float16[b, 8] x) => (float[b, 8] y) {
             two = Constant <value = float16 {2}> ()
             h = MatMul (x, w)
             d = Div (h, two)
             y = RMSNormalization (d, g)
           }""",
        {"w": WEIGHTS["w"].astype(np.float16), "g": WEIGHTS["g"].astype(np.float16)},
    )
    LowerHalfPrecision(FP16)(model)
    x = random(3, 8).astype(np.float16)
    (found,) = run(model, {"x": x})
    h = x.astype(np.float32) @ WEIGHTS["w"] / 2
    expected = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5) * WEIGHTS["g"]
    assert_close([expected], [found], ROUNDING[FP16])
    check_types(model, FP16, islands=True)
