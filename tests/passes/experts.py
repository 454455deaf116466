"""A small mixture of experts in the neutral dialect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from tests.passes.support import LAYER, load, random

EXPERTS, WIDTH, INNER, CHOSEN = 5, 32, 64, 2


@dataclass(frozen=True)
class Settings:
    """Attributes of the op, and whether its experts have biases and a gate."""

    alpha: float = 1.0
    beta: float = 0.0
    limit: float = 0.0
    interleaved: int = 0
    biases: bool = False
    activation: str = "swish"
    gated: bool = True


def experts(
    settings: Settings, width: int = WIDTH, inner: int = INNER
) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """The model, with inputs x, i (choices) and s (shares), and its weights."""
    weights = {
        "gu": random(EXPERTS * (1 + settings.gated) * inner, width, scale=0.2),
        "dn": random(EXPERTS * width, inner, seed=1, scale=0.2),
    }
    more = ""
    if settings.biases:
        weights |= {"b1": random(EXPERTS, 2 * inner, seed=2), "b2": random(EXPERTS, width, seed=3)}
        more = ", b1, b2"
    text = f"""main (float[t, {width}] x, int64[t, k] i, float[t, k] s) => (float[t, {width}] y) {{
      [layer] y = ai.lepton.layer.block (x, i, s, gu, dn{more})
    }}
    {LAYER}
    block (x, i, s, gu, dn{more}) => (y) {{
      y = ai.lepton.Experts <experts = {EXPERTS}, chosen = {CHOSEN}, alpha = {settings.alpha},
        beta = {settings.beta}, limit = {settings.limit},
        interleaved = {settings.interleaved}, gated = {int(settings.gated)},
        activation = "{settings.activation}"> (x, i, s, gu, dn{more})
    }}"""
    return load(text, weights), weights


def scored() -> ir.Model:
    """A mixture with the linear layer that its experts are chosen by, `router`."""
    weights = {
        "router": random(EXPERTS, WIDTH),
        "gu": random(EXPERTS * 2 * INNER, WIDTH, scale=0.2),
        "dn": random(EXPERTS * WIDTH, INNER, seed=1, scale=0.2),
    }
    text = f"""main (float[t, {WIDTH}] x) => (float[t, {WIDTH}] y) {{
      turned = Transpose <perm = [1, 0]> (router)
      scores = MatMul (x, turned)
      count = Constant <value_ints = [{CHOSEN}]> ()
      s, i = TopK (scores, count)
      y = ai.lepton.Experts <experts = {EXPERTS}, chosen = {CHOSEN}, alpha = 1.0, beta = 0.0,
        limit = 0.0, interleaved = 0, activation = "swish"> (x, i, s, gu, dn)
    }}"""
    return load(text, weights)


def routed(tokens: int, among: int = EXPERTS, width: int = WIDTH) -> dict[str, np.ndarray]:
    """Inputs whose tokens choose ``CHOSEN`` of the first ``among`` experts."""
    draw = np.random.default_rng(5)
    choices = np.stack([draw.permutation(among)[:CHOSEN] for _ in range(tokens)])
    shares = draw.uniform(0.05, 1, choices.shape).astype(np.float32)
    return {"x": random(tokens, width, seed=4), "i": choices, "s": shares}
