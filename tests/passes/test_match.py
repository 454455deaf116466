"""What is asked of a graph: ranks and sizes behind ops that broadcast, readers in branches."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.body import Body
from lepton_passes.dtypes import type_of
from lepton_passes.match import (
    has_blocks,
    heads_of,
    in_integers,
    input_at,
    is_decoder,
    largest_block,
    only_reader,
    perm_of,
    rank_of,
    readers,
    sizes_of,
)
from tests.passes.support import load, random


def _made(
    text: str, inputs: str = "float[a, 3, 4] x, float[4] b, float[k] v"
) -> tuple[Body, ir.Value]:
    """What the last node makes; nothing in between says its shape."""
    model = load(f"main ({inputs}) => (y) {{ {text} }}")
    return Body(model), model.graph[-1].outputs[0]


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("y = Add (b, x)", 3),
        ("h = Mul (x, b) y = Relu (h)", None),
        ("h = Mul (b, x) y = Cast <to = 1> (h)", 3),
        ("u = Unsqueeze (v, v) y = Add (x, u)", None),
        ("y = MatMul (x, v)", None),
        ("t = Transpose <perm = [0, 2, 1]> (x) y = MatMul (x, t)", 3),
        ("h = my.dom.Cast (x) y = Add (h, b)", None),
        ("h = my.dom.Cast (x) y = RotaryEmbedding <num_heads = 2> (h, b, b)", 3),
        ("h = my.dom.Cast (x) y = RotaryEmbedding (h, b, b)", None),
        ("y = my.dom.Transpose <perm = [0, 2, 1]> (x)", None),
    ],
)
def test_the_rank_of_a_sum_is_that_of_its_wider_side(text: str, rank: int | None) -> None:
    assert rank_of(*_made(text)) == rank


def test_ranks_behind_many_sums_are_found_in_time() -> None:
    """Each has two ways back: a hundred thousand million ways in all."""
    text = " ".join(f"h{i + 1} = Add (h{i}, h{i})" for i in range(40))
    body, y = _made(f"h0 = Neg (x) {text} y = Identity (h40)")
    assert rank_of(body, y) is None


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("y = Add (b, x)", ("a", 3, 4)),
        ("y = Mul (x, v)", None),  # as long as v, where x had one column
        ("y = my.dom.Relu (x)", None),
    ],
)
def test_the_sizes_of_a_sum_are_those_of_its_wider_side(
    text: str, sizes: tuple[int | str, ...] | None
) -> None:
    assert sizes_of(*_made(text)) == sizes


@pytest.mark.parametrize(("axis", "heads"), [(2, (2, 8)), (-1, (6, 2)), (1, None)])
def test_heads_of_pieces(axis: int, heads: tuple[int, int] | None) -> None:
    body, y = _made(
        f"""shape = Constant <value_ints = [0, 0, 6, 8]> ()
            sizes = Constant <value_ints = [2, 4]> ()
            r = Reshape (x, shape)
            y, z = Split <axis = {axis}> (r, sizes)"""
    )
    assert heads_of(body, y) == heads


def test_inputs_that_are_left_out() -> None:
    """One in between has no name; those at the end are not written."""
    _, y = _made("y = Clip (x, , b)")
    clip = y.producer()
    assert clip is not None
    found = [input_at(clip, place) for place in range(4)]
    assert [value.name if value else None for value in found] == ["x", None, "b", None]


def test_readers_in_branches_are_none() -> None:
    model = load(
        """main (float[2] x, bool c) => (y) {
             h = Neg (x)
             r = Relu (h)
             s = Abs (x)
             z = If (c) <then_branch = one () => (p) { p = Add (h, s) },
                         else_branch = two () => (q) { q = Identity (x) }>
             y = Add (r, z)
           }"""
    )
    h, s = model.graph[0].outputs[0], model.graph[2].outputs[0]
    assert [node.op_type for node in readers(h)] == ["Relu"]
    assert (only_reader(h), only_reader(s)) == (None, None)


def test_what_the_model_gives_out_has_no_only_reader() -> None:
    for outputs, alone in (("y", True), ("y, h", False)):
        model = load(f"main (float[a] x) => ({outputs}) {{ h = Neg (x) y = Relu (h) }}")
        assert (only_reader(model.graph[0].outputs[0]) is not None) is alone


@pytest.mark.parametrize(
    ("node", "wholly"),
    [
        ("MatMul (a, b)", True),
        ("MatMul (a, x)", False),
        ("Relu (a)", False),  # which may be a weight
        ("MatMul (a, w)", False),
        ("Gemm (a, b, w)", True),
        ("Clip (a, , b)", True),
    ],
)
def test_what_is_computed_in_integers(node: str, wholly: bool) -> None:
    model = load(
        f"""main (int8[4, 4] q, int8[4, 4] r, float[4, 4] x) => (y) {{
              one = Constant <value_float = 1.0> ()
              a = DequantizeLinear (q, one)
              b = DequantizeLinear (r, one)
              y = {node}
            }}""",
        {"w": random(4, 4)} if "w" in node else {},
    )
    assert in_integers(model.graph[-1]) is wholly


def test_types_that_nobody_says() -> None:
    body, y = _made("h = Neg (x) t = Transpose (h) y = Relu (t)", "double[3, 4] x")
    assert type_of(body, y) == ir.DataType.DOUBLE
    assert type_of(*_made("h = Less (x, x) y = Not (h)")) == ir.DataType.BOOL


def test_blocks_are_powers_of_two() -> None:
    assert [n for n in range(600) if has_blocks(n)] == [16, 32, 64, 128, 256]
    assert has_blocks(512, 512)


@pytest.mark.parametrize(
    ("shape", "heads"),
    [
        ("0, 0, 2, 8", (2, 8)),
        ("0, 0, 2, 8, 1", None),
        ("0, 0, 2, -1", None),
        ("0, 0, -1, 8", None),
        ("0, 0, 0, 8", None),  # as many as there were
    ],
)
def test_heads_of_four_axes(shape: str, heads: tuple[int, int] | None) -> None:
    text = f"s = Constant <value_ints = [{shape}]> () y = Reshape (x, s)"
    assert heads_of(*_made(text, "float[a, 3, 16] x")) == heads


@pytest.mark.parametrize(
    ("inputs", "heads"),
    [
        ("float[b, s, 2, 8] x", (2, 8)),
        ("float[b, s, h, 8] x", None),
        ("float[b, s, 2, d] x", None),
        ("float[b, s, 16] x", None),
    ],
)
def test_heads_of_what_says_its_shape(inputs: str, heads: tuple[int, int] | None) -> None:
    model = load(f"main ({inputs}, float[8] g) => (y) {{ y = RMSNormalization (x, g) }}")
    body = Body(model)
    assert heads_of(body, model.graph.inputs[0]) == heads
    assert heads_of(body, model.graph[0].outputs[0]) == heads, "a norm keeps them"
    assert heads_of(body, None) is None


def test_a_norm_of_another_domain_says_nothing_of_heads() -> None:
    model = load("main (float[b, s, 2, 8] x) => (y) { y = my.dom.RMSNormalization (x) }")
    assert heads_of(Body(model), model.graph[0].outputs[0]) is None


def test_the_largest_block_that_divides_the_columns() -> None:
    found = {columns: largest_block(columns) for columns in (128, 64, 96, 48, 40)}
    assert found == {128: 64, 64: 64, 96: 32, 48: 16, 40: None}
    assert [largest_block(columns, 128) for columns in (256, 192, 40)] == [128, 64, None]
    assert largest_block(128, 0) is None


@pytest.mark.parametrize(("op", "perm"), [("Transpose", (0, 2, 1)), ("my.dom.Transpose", None)])
def test_the_permutation_of_a_standard_op(op: str, perm: tuple[int, ...] | None) -> None:
    body, _ = _made(f"y = {op} <perm = [0, 2, 1]> (x)")
    (node,) = body.graph
    assert perm_of(node) == perm


@pytest.mark.parametrize(
    ("name", "decodes"),
    [
        ("past_key_values.0.key", True),
        ("past_conv.0", True),
        ("past_recurrent.0", True),
        ("past_lengths", False),
    ],
)
def test_a_decoder_goes_on_from_what_came_before(name: str, decodes: bool) -> None:
    model = load("main (float[a, b] ids, float[a, b] x) => (y) { y = Add (ids, x) }")
    model.graph.inputs[1].name = name
    assert is_decoder(model) == decodes
