"""The ops of ``ai.lepton.cpu`` for norms over the last axis.

    norm(s, gamma, beta) = (s - mean(s)) / sqrt(mean((s - mean(s))^2) + epsilon) * gamma + beta

    Normalization       y = norm(x, gamma, beta) + residual
    SkipNormalization   s = norm(x, own) + skip, or x + skip;   y = norm(s, gamma, beta)

With ``rms`` 1 no mean is taken off. ``SkipNormalization`` gives ``s`` too, where it is asked for.
"""

from __future__ import annotations

from lepton_plugins.spec import CPU_DOMAIN, Attribute, PluginSpec, Tensor, Tolerance

__all__ = ["SPEC"]

_ROWS, _WIDTH = ("...", "width"), ("width",)
_FP32 = ("float32",)

SPEC = PluginSpec(
    name="SkipNormalization",
    namespace=CPU_DOMAIN,
    version="1",
    inputs=(
        Tensor("x", _FP32, _ROWS),
        Tensor("skip", _FP32, _ROWS),
        Tensor("gamma", _FP32, _WIDTH),
        Tensor("beta", _FP32, _WIDTH, optional=True),
        Tensor("own", _FP32, _WIDTH, optional=True),
    ),
    outputs=(Tensor("y", _FP32, _ROWS), Tensor("sum", _FP32, _ROWS, optional=True)),
    attributes=(
        Attribute("epsilon", "float", None, 0.0, float("inf"), "added to the variance"),
        Attribute("rms", "int", None, 0, 1, "1: no mean is taken off"),
    ),
    tolerance={"float32": Tolerance(2e-6, 2e-6)},
)
