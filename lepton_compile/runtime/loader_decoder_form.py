"""What is read of a decoder's manifest besides."""

from __future__ import annotations

from lepton_compile.runtime.loader_guard import TENSOR

__all__ = ["DECODER"]

LAYER = {"heads": int, "head_dim": int, "layer?": int}
KEPT = {"layers": [LAYER], "states?": [{"past": str, "present": str, "shape": [int]}]}
CACHE = {"past": str, "present": str, "max_length": int, "shared": bool, "pieces?": bool, **KEPT}
TOKENS = {"vocabulary": int, "eos?": [int], "never?": [int], "first?": [int]}
HALVES = [{"io?": {"inputs?": [TENSOR], "outputs?": [TENSOR]}}]
DECODER = {"cache?": CACHE, "generation?": {**TOKENS, "rules?": {}}, "engines": HALVES}
