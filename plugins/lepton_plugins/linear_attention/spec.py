"""The op ``ai.lepton.cpu::LinearAttention``: a matrix for each head in place of a cache.

    S = exp(decay) S' + key update^T                  S': behind the token before; first, ``past``
    update = value                                    without beta
    update = beta (value - (exp(decay) S')^T key)     with it: the delta rule
    y = scale S^T query

``heads`` counts values; as many of them that follow one another share a query or a key as there are
heads for each. ``decay`` is one number for a head, or one for each of its keys'. ``present`` is S
behind the last token and may share the memory of ``past``.
"""

from __future__ import annotations

from lepton_plugins.spec import CPU_DOMAIN, Attribute, PluginSpec, Tensor, Tolerance

__all__ = ["MOST_DEPTH", "SPEC"]

MOST_DEPTH = 512
"""Numbers of a key."""

_FP32 = ("float32",)
_STATE = ("batch", "heads", "depth", "width")
_VALUES = ("batch", "sequence", "heads*width")

SPEC = PluginSpec(
    name="LinearAttention",
    namespace=CPU_DOMAIN,
    version="1",
    inputs=(
        Tensor("query", _FP32, ("batch", "sequence", "query_heads*depth")),
        Tensor("key", _FP32, ("batch", "sequence", "key_heads*depth")),
        Tensor("value", _FP32, _VALUES),
        Tensor("past", _FP32, _STATE),
        Tensor("decay", _FP32, ("batch", "sequence", "heads or heads*depth")),
        Tensor("beta", _FP32, ("batch", "sequence", "heads"), optional=True),
    ),
    outputs=(Tensor("y", _FP32, _VALUES), Tensor("present", _FP32, _STATE, alias="past")),
    attributes=(Attribute("scale", "float", None, 0.0, float("inf"), "of the results"),),
    # Relative to the largest number of the result, as sums cancel.
    tolerance={"float32": Tolerance(0.0, 5e-6)},
)
