"""How llama.cpp stores each architecture: its names, and what it did to the values.

Hugging Face name = the table's text for the GGUF name, with ``blk.N`` as ``model.layers.N``. What
its converter did to values is undone while reading:

    norm_offset  norms of Gemma hold ``1 + w``
    permuted     rows of q and k are reordered so that rotary pairs are neighbours
    pairs        what the model has as one stack of experts, gate and up, is two
    in_turns     their rows take turns in the model: gate, up, gate, up
    turned       matrices that the model has with rows for columns
    added        an axis of one that was left out
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lepton_compile.errors import CheckpointError
from lepton_compile.export.checkpoint.names import summarize

__all__ = ["ARCHITECTURES", "Layout", "hugging_face_names", "kind_of"]

OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
MLP = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LAYER = {**ATTENTION, **NORMS, **MLP}
QK_NORM = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
SANDWICH_NORM = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
FUSED = {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_up_exps.weight": "mlp.experts.gate_up_proj",
    "ffn_down_exps.weight": "mlp.experts.down_proj",
}
SHARED_EXPERT = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
GATE_UP = {"mlp.experts.gate_up_proj": ("ffn_gate_exps.weight", "ffn_up_exps.weight")}
STACKS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")

# Rotary frequencies: part of the configuration in Hugging Face's convention, not weights.
CONFIGURATION = re.compile(r"^(rope_freqs|rope_factors_(long|short))\.weight$")


@dataclass(frozen=True)
class Layout:
    """What one GGUF architecture needs.

    Attributes:
        layer: kind of a tensor in a layer, with or without ``.weight`` -> its name in the model.
        outer: the same of tensors outside layers.
        layers: where the model has its layers.
    """

    layer: Mapping[str, str]
    outer: Mapping[str, str] = field(default_factory=lambda: OUTER)
    layers: str = "model.layers"
    norm_offset: bool = False
    permuted: tuple[str, ...] = ()
    pairs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    in_turns: bool = False
    turned: tuple[str, ...] = ()
    added: Mapping[str, int] = field(default_factory=dict)


QK = ("attn_q", "attn_k")
ARCHITECTURES = {
    "gemma2": Layout({**LAYER, **SANDWICH_NORM}, norm_offset=True),
    "gemma3": Layout({**LAYER, **QK_NORM, **SANDWICH_NORM}, norm_offset=True),
    "gpt-oss": Layout(
        {
            **ATTENTION,
            "attn_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "attn_sinks.weight": "self_attn.sinks",
            "ffn_gate_inp": "mlp.router",
            "ffn_down_exps.weight": "mlp.experts.down_proj",
            "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
        },
        pairs={
            **GATE_UP,
            "mlp.experts.gate_up_proj_bias": ("ffn_gate_exps.bias", "ffn_up_exps.bias"),
        },
        in_turns=True,
        turned=STACKS,
    ),
    "llama": Layout({**LAYER, **EXPERTS}, permuted=QK, pairs=GATE_UP),
    "phi3": Layout({**LAYER, **FUSED}),
    "qwen2": Layout(LAYER),
    "qwen2moe": Layout(
        {**ATTENTION, **NORMS, **EXPERTS, **SHARED_EXPERT},
        pairs=GATE_UP,
        added={"ffn_gate_inp_shexp": 0},
    ),
    "qwen3": Layout({**LAYER, **QK_NORM}),
    "qwen3moe": Layout({**ATTENTION, **NORMS, **QK_NORM, **EXPERTS}, pairs=GATE_UP),
}


def hugging_face_names(
    architecture: str, names: Iterable[str], path: Path
) -> dict[str, tuple[str, ...]]:
    """Hugging Face name -> the GGUF names of what it is stored as: one, or two that are a pair.

    What is configuration is left out.

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
    weights = [name for name in names if not CONFIGURATION.match(name)]
    whole: dict[str, dict[int | None, str]] = {}
    odd = set()
    for name in weights:
        known, half = _known(layout, name)
        if known is None or half in whole.get(known, {}):
            odd.add(name)
        else:
            whole.setdefault(known, {})[half] = name
    for parts in whole.values():
        if set(parts) not in ({None}, {0, 1}):  # half of a pair
            odd.update(parts.values())
    unknown = [name for name in weights if name in odd]
    if unknown:
        raise CheckpointError(
            f"The GGUF file holds tensors that {architecture} does not have.",
            where=str(path),
            found=f"{len(unknown)} unknown: {', '.join(summarize(unknown))}",
            hint="Give the Hugging Face folder of the model instead.",
        )
    return {
        known: tuple(parts[half] for half in sorted(parts, key=bool))
        for known, parts in whole.items()
    }


def kind_of(name: str) -> str:
    """``blk.3.attn_q.weight`` as attn_q."""
    return _split(name)[1]


def _known(layout: Layout, name: str) -> tuple[str | None, int | None]:
    """The model's name of a tensor; and which half of it this is, where it is one of a pair."""
    block, kind, suffix = _split(name)
    table = layout.outer if block is None else layout.layer
    known, half = table.get(f"{kind}.{suffix}"), None
    for paired, parts in layout.pairs.items():
        if block is not None and f"{kind}.{suffix}" in parts:
            known, half = paired, parts.index(f"{kind}.{suffix}")
    if known is None and kind in table and suffix in ("weight", "bias"):
        known = f"{table[kind]}.{suffix}"
    if known is not None and block is not None:
        known = f"{layout.layers}.{block}.{known}"
    return known, half


def _split(name: str) -> tuple[int | None, str, str]:
    """``blk.3.attn_q.weight`` as 3, attn_q, weight."""
    stem, _, suffix = name.rpartition(".")
    match = re.fullmatch(r"blk\.(\d+)\.([\w.]+)", stem)
    if match is None:
        return None, stem, suffix
    return int(match[1]), match[2], suffix
