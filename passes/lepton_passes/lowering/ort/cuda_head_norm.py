"""Take RMS norms of heads into the CUDA kernel of GroupQueryAttention, and the Split before it.

    Before   q, k, v = Split(qkv)
             GroupQueryAttention(Reshape(RMSNormalization(Reshape(q))), .. k .., v, ..)
    After    GroupQueryAttention(qkv, , , .., q_norm_weight, k_norm_weight)

A step of a decoder is a row of small kernels, and what each costs is above all its start.
Refuses: a norm of one of the two alone; norms of different epsilon; of a whole row (OLMo 2); read
by others, too; of something else than a projection; heads of more than 256.
"""

from __future__ import annotations

import onnx_ir as ir

from lepton_passes.body import MICROSOFT
from lepton_passes.lowering.ort._head_norm import HeadNorm
from lepton_passes.match import norm_axis_is_last

__all__ = ["LowerCudaHeadNorm"]


class LowerCudaHeadNorm(HeadNorm):
    """Take norms of heads into the attention kernel."""

    name = "lower-cuda-head-norm"
    summary = "Norms of heads into GroupQueryAttention"
    domain = MICROSOFT
    norms = ("RMSNormalization", "")
    places = (14, 15)
    epsilon = "qk_norm_epsilon"
    most = 256
    alone = False

    def differs(self, norm: ir.Node) -> str | None:
        """Why the kernel cannot do what this norm does."""
        if not norm_axis_is_last(norm) or norm.attributes.get_int("stash_type", 1) != 1:
            return "the norm runs over other axes than the last, or not in fp32"
        return None
