"""Take RMS norms of heads into our own attention kernel, and the Split of a packed projection.

    Before   q, k, v = Split(qkv)
             GroupQueryAttention(Reshape(Norm(Reshape(q))), Reshape(Norm(Reshape(k))), v, ..)
    After    GroupQueryAttention(qkv, , , .., query_norm, key_norm)

Refuses: a norm of one of the two alone, where there are both; norms of different epsilon; of a
whole row (OLMo 2); with a mean or a bias; read by others, too; of something else than a projection;
heads of more than 1,024.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.lowering.ort._head_norm import HeadNorm
from lepton_passes.match import input_at
from lepton_plugins.spec import CPU_DOMAIN

__all__ = ["LowerNativeHeadNorm"]


class LowerNativeHeadNorm(HeadNorm):
    """Take norms of heads into the attention kernel."""

    name = "lower-native-head-norm"
    summary = "Norms of heads into attention of our own"
    domain = CPU_DOMAIN
    norms = ("Normalization", CPU_DOMAIN)
    places = (9, 10)
    epsilon = "epsilon"
    most = 1024
    alone = True

    def differs(self, norm: ir.Node) -> str | None:
        """Why the kernel cannot do what this norm does."""
        biased = input_at(norm, 2) is not None
        if not norm.attributes.get_int("rms", 0) or biased:
            return "the norm takes a mean off, or has a bias"
        return None
