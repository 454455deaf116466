"""Attention behind norms of heads: graphs and cases for the passes that take the norms into it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from tests.passes.support import Arrays, load, random

__all__ = ["REFUSED", "TAKEN", "model"]

PACKED = """sizes = Constant <value_ints = [64, 32, 32]> ()
      q, k, v = Split <axis = -1> (x, sizes)"""
APART = """q = MatMul (x, wq)
      k = MatMul (x, wk)
      v = MatMul (x, wv)"""
BOTH = """parted = Constant <value_ints = [0, 0, -1, 16]> ()
      q4 = Reshape (q, parted)
      k4 = Reshape (k, parted)
      qn = {query} (q4, gamma_q)
      kn = {key} (k4, gamma_k)
      joined = Constant <value_ints = [0, 0, -1]> ()
      q3 = Reshape (qn, joined)
      k3 = Reshape (kn, joined)"""
WIDTHS = (("q", 64), ("k", 32), ("v", 32))

TAKEN: list[tuple[Mapping[str, str], list[str]]] = [
    ({}, ["GroupQueryAttention"]),
    ({"projections": APART}, ["MatMul", "MatMul", "MatMul", "GroupQueryAttention"]),
    ({"more": "extra = Neg (v)"}, ["Split", "Neg", "GroupQueryAttention"]),
]
"""What ``model`` is given, and the ops that are left."""

REFUSED: list[tuple[Mapping[str, object], str]] = [
    ({"reads": "q3, k, v"}, "one of query and key has a norm, the other has none"),
    ({"epsilon": "1e-5"}, "the norms of query and key have different epsilons"),
    ({"more": "extra = Neg (qn)"}, "something else reads the norm, too"),
    ({"width": 32}, "the norm is not one of a head"),
    (
        {"projections": "q = Identity (pk) k = Identity (pk) v = Identity (pk)"},
        "what is normed is no projection of (batch, sequence, heads * width)",
    ),
]
"""What ``model`` is given, and why nothing is taken."""


def model(
    norm: str,
    attention: str,
    *,
    projections: str = PACKED,
    norms: str = BOTH,
    query: str = "",
    epsilon: str = "1e-6",
    reads: str = "q3, k3, v",
    more: str = "",
    width: int = 16,
    behind: str = "",
) -> ir.Model:
    """Projections, norms of query and key, attention over 4 heads that share 2.

    Args:
        norm, attention: ops with their attributes; that of the norm has an ``epsilon`` in braces.
        query: the norm of the query where it is another than the key's.
        epsilon: of the norm of the key; that of the query is 1e-6.
        reads: what attention reads in front of the cache.
        more: lines that make ``extra``.
        width: of the heads in the cache.
        behind: what attention reads behind the lengths.
    """
    made = norms.format(
        query=query or norm.format(epsilon="1e-6"), key=norm.format(epsilon=epsilon)
    )
    text = f"""main (float[b, s, 128] x, float[b, 2, p, {width}] pk, float[b, 2, p, {width}] pv,
          int32[b] lengths, int32 total) => (y, present_k, present_v{more and ", extra"}) {{
      {projections}
      {made}
      {more}
      y, present_k, present_v = {attention} ({reads}, pk, pv, lengths, total{behind})
    }}"""
    weights: Arrays = {"gamma_q": random(16, seed=5), "gamma_k": random(16, seed=6)}
    weights |= {f"w{n}": random(128, w, seed=i) / 11 for i, (n, w) in enumerate(WIDTHS)}
    return load(text, {name: array for name, array in weights.items() if f" {name})" in text})
