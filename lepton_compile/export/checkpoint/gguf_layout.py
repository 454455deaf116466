"""How llama.cpp stores each architecture: its names, and what it did to the values.

Hugging Face name = the table's text for the GGUF name, with ``blk.N`` as ``model.layers.N``. Two
changes of value are undone while reading: Gemma's norms hold ``1 + w``, and the rows of q and k of
the ``llama`` architecture are reordered so that rotary pairs are neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint.names import summarize

__all__ = ["ARCHITECTURES", "Layout", "hugging_face_names"]

OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
QK_NORM = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
SANDWICH_NORM = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
FUSED = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}

# Rotary frequencies: part of the configuration in Hugging Face's convention, not weights.
CONFIGURATION = re.compile(r"^(rope_freqs|rope_factors_(long|short))\.weight$")


@dataclass(frozen=True)
class Layout:
    """What one GGUF architecture needs."""

    layer: Mapping[str, str]
    norm_offset: bool = False
    permuted: tuple[str, ...] = ()


ARCHITECTURES = {
    "gemma3": Layout({**LAYER, **QK_NORM, **SANDWICH_NORM}, norm_offset=True),
    "llama": Layout(LAYER, permuted=("attn_q", "attn_k")),
    "qwen2": Layout(LAYER),
    "qwen3": Layout({**LAYER, **QK_NORM}),
    "phi3": Layout({**LAYER, **FUSED}),
}


def hugging_face_names(architecture: str, names: Iterable[str], path: Path) -> dict[str, str]:
    """GGUF name by Hugging Face name; what is configuration is left out.

    Raises:
        CheckpointError: the architecture is not known here, or tensors are not: all of them.
    """
    layout = ARCHITECTURES.get(architecture)
    if layout is None:
        raise CheckpointError(
            "This GGUF architecture cannot be compiled.",
            where=str(path),
            found=architecture or "none",
            available=sorted(ARCHITECTURES),
            hint="Give the Hugging Face folder of the model instead.",
        )
    found = {name: _known(layout, name) for name in names if not CONFIGURATION.match(name)}
    unknown = [name for name, known in found.items() if known is None]
    if unknown:
        raise CheckpointError(
            f"The GGUF file holds tensors that {architecture} does not have.",
            where=str(path),
            found=f"{len(unknown)} unknown: {', '.join(summarize(unknown))}",
            hint="Give the Hugging Face folder of the model instead.",
        )
    return {known: name for name, known in found.items() if known is not None}


def _known(layout: Layout, name: str) -> str | None:
    block, kind, suffix = _split(name)
    known = OUTER.get(kind) if block is None else layout.layer.get(kind)
    if known is None or suffix not in ("weight", "bias"):
        return None
    return f"{known}.{suffix}" if block is None else f"model.layers.{block}.{known}.{suffix}"


def _split(name: str) -> tuple[int | None, str, str]:
    """``blk.3.attn_q.weight`` as 3, attn_q, weight."""
    stem, _, suffix = name.rpartition(".")
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if match is None:
        return None, stem, suffix
    return int(match[1]), match[2], suffix
