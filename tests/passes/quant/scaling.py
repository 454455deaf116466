"""A graph for the tests of scaled inputs: two decoder layers that share a function, and a head."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.pipeline.energies import Energies
from lepton_passes.quant.scaled import ScaledEnergies
from tests.passes.support import LAYER, load, random

WIDTH, INNER, HEAD, VOCABULARY = 64, 96, 16, 128
MASK = np.ones((3, 5), dtype=bool)
FEEDS = {"x": random(3, 5, WIDTH, seed=4), "mask": MASK, "count": np.array(0)}
LINEARS = ("wq", "wk", "wv", "wo", "gate", "up", "down")
_VECTORS = ("norm", "norm2", "norm2_bias", "v_bias", "up_bias")
_PARTS = (*LINEARS, *_VECTORS)
_NAMES = ", ".join(_PARTS)
NORM = "n1 = RMSNormalization <axis = -1> (x, norm)"
NORM2 = "n2 = LayerNormalization <axis = -1> (r, norm2, norm2_bias)"
ATTENTION = """c = ai.lepton.Attention <q_num_heads = {q}, kv_num_heads = {kv}, scale = 0.25,
    softcap = 0.0, causal = 1, window = -1> (qy, ky, vy, mask)"""
VALUE = "vm = MatMul (n1, wvt)\n  vy = Add (vm, v_bias)"
GATED = "g = Gelu (gm)\n  d = Mul (g, uy)"
RESIDUAL = "y = Add (r, down_y)"


def _linear(name: str, x: str, y: str) -> str:
    return f"  {name}t = Transpose <perm = [1, 0]> ({name})\n  {y} = MatMul ({x}, {name}t)\n"


def text(heads: tuple[int, int] = (4, 2), **parts: str) -> str:
    """The graph; ``parts`` are lines in place of those of this module, by name in lower case."""
    q, kv = heads
    calls = "".join(
        f"  [layers{n}] {y} = ai.lepton.layer.block (mask, {x}, "
        + ", ".join(f"layers{n}_{part}" for part in _PARTS)
        + ")\n"
        for n, x, y in ((0, "x", "m"), (1, "m", "h"))
    )
    return f"""
main (float[b, s, {WIDTH}] x, bool[b, t] mask, int64 count) => (float[b, s, {VOCABULARY}] logits) {{
{calls}
  n = RMSNormalization <axis = -1> (h, final_norm)
  kept = ai.lepton.KeepLast (n, count)
{_linear("head", "kept", "logits")}
}}
{LAYER}
block (mask, x, {_NAMES}) => (y) {{
  {parts.get("norm", NORM)}
{_linear("wq", "n1", "qy")}{_linear("wk", "n1", "ky")}
  wvt = Transpose <perm = [1, 0]> (wv)
  {parts.get("value", VALUE)}
  {parts.get("attention", ATTENTION).format(q=q, kv=kv)}
{_linear("wo", "c", "oy")}
  r = Add (x, oy)
  {parts.get("norm2", NORM2)}
{_linear("gate", "n2", "gm")}{_linear("up", "n2", "um")}
  uy = Add (up_bias, um)
  {parts.get("gated", GATED)}
{_linear("down", "d", "down_y")}
  {parts.get("residual", RESIDUAL)}
}}
"""


def weights(heads: tuple[int, int] = (4, 2), seed: int = 0) -> dict[str, np.ndarray]:
    """Random numbers for it, with channels of very different sizes behind norms."""
    q, kv = (count * HEAD for count in heads)
    shapes: dict[str, tuple[int, ...]] = {
        "wq": (q, WIDTH), "wk": (kv, WIDTH), "wv": (kv, WIDTH), "wo": (WIDTH, q),
        "gate": (INNER, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER),
        "norm": (WIDTH,), "norm2": (WIDTH,), "norm2_bias": (WIDTH,),
        "v_bias": (kv,), "up_bias": (INNER,),
    }  # fmt: skip
    made = {
        f"layers{n}_{name}": random(*shape, seed=seed + 31 * n + place, scale=0.12)
        for n in (0, 1)
        for place, (name, shape) in enumerate(shapes.items())
    }
    made |= {"final_norm": random(WIDTH, seed=7), "head": random(VOCABULARY, WIDTH, seed=seed)}
    for name, array in made.items():
        if name.endswith(("norm", "norm2")):
            made[name] = np.exp(8 * array if name != "final_norm" else array)
    return made


def model(heads: tuple[int, int] = (4, 2), seed: int = 0, **parts: str) -> ir.Model:
    """The graph with its weights."""
    return load(text(heads, **parts), weights(heads, seed))


def energies(graph: ir.Model, feeds: dict[str, Any] | None = None) -> ScaledEnergies:
    """What its layers read, measured when asked for."""
    return ScaledEnergies(Energies(graph, lambda: [FEEDS if feeds is None else feeds]))
