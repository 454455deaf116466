"""The op ``ai.lepton.cpu::CausalConv``: a short convolution of each channel by itself.

    y[t] = activation(sum(taps[j] * x[t - (count - 1) + j], j < count) + bias)

Tokens in front of ``x`` are those of ``past``, which has its channels first, as the state of the
model; ``present`` are the last ``count - 1`` of both together. The two may share their memory.
"""

from __future__ import annotations

from lepton_plugins.spec import CPU_DOMAIN, Attribute, PluginSpec, Tensor, Tolerance

__all__ = ["MOST_TAPS", "SPEC"]

MOST_TAPS = 64

_FP32 = ("float32",)
_ROWS = ("batch", "sequence", "channels")
_STATE = ("batch", "channels", "count-1")

SPEC = PluginSpec(
    name="CausalConv",
    namespace=CPU_DOMAIN,
    version="1",
    inputs=(
        Tensor("x", _FP32, _ROWS),
        Tensor("taps", _FP32, ("count", "channels")),
        Tensor("past", _FP32, _STATE),
        Tensor("bias", _FP32, ("channels",), optional=True),
    ),
    outputs=(Tensor("y", _FP32, _ROWS), Tensor("present", _FP32, _STATE, alias="past")),
    attributes=(Attribute("activation", "int", None, 0, 1, "0 none, 1 SiLU"),),
    # Relative to the sum of magnitudes of what is added up.
    tolerance={"float32": Tolerance(1e-6, 2e-6)},
)
