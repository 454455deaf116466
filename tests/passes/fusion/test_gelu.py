"""fuse-gelu."""

from __future__ import annotations

import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.fusion.gelu import FuseGelu
from tests.passes.support import check, load, ops, random, reasons

FEEDS = {"x": random(2, 3, 8)}
CONSTANTS = """
  half = Constant <value_float = 0.5> ()
  one = Constant <value_float = 1.0> ()
  three = Constant <value_float = 3.0> ()
  small = Constant <value_float = 0.044715> ()
  pi = Constant <value_float = {pi}> ()
  root = Constant <value_float = 1.4142135> ()
"""
CUBE = {"pow": "c = Pow (x, three)", "mul": "d = Mul (x, x) c = Mul (d, x)"}
TANH = "{cube} s = Mul (small, c) a = Add (x, s) p = Mul (a, pi) e = Tanh (p)"
ERF = "p = Div (x, root) e = Erf (p)"
END = {
    "half first": "h = Mul (half, x) f = Add (e, one) y = Mul (h, f)",
    "half last": "f = Add (one, e) h = Mul (x, f) y = Mul (h, half)",
    "half inside": "f = Add (e, one) h = Mul (f, half) y = Mul (h, x)",
}


def _graph(body: str, pi: float = 0.7978845) -> str:
    return f"main (float[b, s, 8] x) => (y) {{ {CONSTANTS.format(pi=pi)} {body} }}"


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("cube", CUBE)
def test_tanh(end: str, cube: str) -> None:
    model = load(_graph(TANH.format(cube=CUBE[cube]) + END[end]))
    assert check(FuseGelu(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Gelu"]
    assert model.graph[-1].attributes["approximate"].as_string() == "tanh"


@pytest.mark.parametrize("end", END)
def test_erf(end: str) -> None:
    model = load(_graph(ERF + " " + END[end]))
    assert check(FuseGelu(), model, FEEDS, CLOSE).fired == 1
    assert ops(model) == ["Gelu"]


def test_leaves_other_constants() -> None:
    model = load(_graph(TANH.format(cube=CUBE["pow"]) + END["half first"], pi=0.7))
    assert check(FuseGelu(), model, FEEDS, CLOSE).fired == 0


@pytest.mark.parametrize("cube", ["c = Pow (x, one)", "d = Mul (x, x) c = Mul (d, d)"])
def test_leaves_what_is_no_cube(cube: str) -> None:
    done = check(FuseGelu(), load(_graph(TANH.format(cube=cube) + END["half first"])), FEEDS, CLOSE)
    assert (done.fired, reasons(done)) == (0, [])


def test_what_is_in_front_is_no_part_of_it() -> None:
    """Though it has a constant with more axes."""
    text = ERF + " " + END["half last"]
    front = "zero = Constant <value = float[1, 1, 1, 1] {0}> () w = Add (z, zero) x = Squeeze (w)"
    graph = _graph(f"{front} {text}").replace("float[b, s, 8] x", "float[2, 3, 8] z")
    assert check(FuseGelu(), load(graph), {"z": random(2, 3, 8)}, CLOSE).fired == 1


def test_refuses_another_end() -> None:
    done = check(FuseGelu(), load(_graph(ERF + " f = Add (e, one) y = Mul (x, f)")), FEEDS, CLOSE)
    assert reasons(done) == ["what follows is not 0.5 x (1 + ..)"]


def test_refuses_a_sum_at_the_end() -> None:
    text = ERF + " f = Add (one, e) h = Mul (f, half) y = Add (h, x)"
    done = check(FuseGelu(), load(_graph(text)), FEEDS, CLOSE)
    assert reasons(done) == ["what follows is not 0.5 x (1 + ..)"]


def test_refuses_a_constant_with_more_axes() -> None:
    text = _graph(ERF + " " + END["half last"]).replace("float[b, s, 8]", "float[s]")
    model = load(
        text.replace(
            "half = Constant <value_float = 0.5>", "half = Constant <value = float[1, 1] {0.5}>"
        )
    )
    done = check(FuseGelu(), model, {"x": random(5)}, CLOSE)
    assert reasons(done) == ["a constant has more axes than what it is applied to"]
