"""How llama.cpp stores each architecture: its names, and what its converter did to values.

norm_offset  norms of Gemma hold ``1 + w``
permuted     rows of q and k are reordered so that rotary pairs are neighbours
pairs        what the model has as one stack of experts, gate and up, is two
in_turns     their rows take turns in the model: gate, up, gate, up
turned       matrices that the model has with rows for columns
added        an axis of one that was left out
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["ARCHITECTURES", "Layout"]

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
POST_NORM = {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
SANDWICH_NORM = {**POST_NORM, "ffn_norm": "pre_feedforward_layernorm"}
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
QK = ("attn_q", "attn_k")
STACKS = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")


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


ARCHITECTURES = {
    "cohere2": Layout({**ATTENTION, "attn_norm": "input_layernorm", **MLP}),
    "exaone4": Layout({**ATTENTION, **QK_NORM, **POST_NORM, **MLP}),
    "gemma": Layout(LAYER, norm_offset=True),
    "gemma2": Layout({**LAYER, **SANDWICH_NORM}, norm_offset=True),
    "gemma3": Layout({**LAYER, **QK_NORM, **SANDWICH_NORM}, norm_offset=True),
    "gemma4": Layout(
        {
            **LAYER,
            **QK_NORM,
            **SANDWICH_NORM,
            "layer_output_scale.weight": "layer_scalar",
            "inp_gate": "per_layer_input_gate",
            "proj": "per_layer_projection",
            "post_norm": "post_per_layer_input_norm",
            "ffn_gate_inp": "router.proj",
            "ffn_gate_inp.scale": "router.scale",
            "ffn_gate_up_exps.weight": "experts.gate_up_proj",
            "ffn_down_exps.weight": "experts.down_proj",
            "ffn_down_exps.scale": "router.per_expert_scale",
            "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
            "post_ffw_norm_1": "post_feedforward_layernorm_1",
            "post_ffw_norm_2": "post_feedforward_layernorm_2",
        },
        outer={
            **OUTER,
            "per_layer_token_embd": "model.embed_tokens_per_layer",
            "per_layer_model_proj": "model.per_layer_model_projection",
            "per_layer_proj_norm": "model.per_layer_projection_norm",
        },
        pairs={"experts.gate_up_proj": GATE_UP["mlp.experts.gate_up_proj"]},
    ),
    "glm4": Layout(
        {
            **ATTENTION,
            **NORMS,
            "post_attention_norm": "post_self_attn_layernorm",
            "post_ffw_norm": "post_mlp_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        }
    ),
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
    "gpt2": Layout(
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        outer={
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        layers="transformer.h",
        turned=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
    ),
    "granite": Layout(LAYER, permuted=QK),
    "lfm2": Layout(
        {
            "attn_norm": "operator_norm",
            **ATTENTION,
            "attn_output": "self_attn.out_proj",
            "attn_q_norm": "self_attn.q_layernorm",
            "attn_k_norm": "self_attn.k_layernorm",
            "shortconv.conv": "conv.conv",
            "shortconv.in_proj": "conv.in_proj",
            "shortconv.out_proj": "conv.out_proj",
            "ffn_norm": "ffn_norm",
            "ffn_gate": "feed_forward.w1",
            "ffn_up": "feed_forward.w3",
            "ffn_down": "feed_forward.w2",
        },
        # Files differ in what they call the last norm; converters began with the first.
        outer={
            **OUTER,
            "token_embd_norm": "model.embedding_norm",
            "output_norm": "model.embedding_norm",
        },
        added={"shortconv.conv.weight": 1},
    ),
    "llama": Layout({**LAYER, **EXPERTS}, permuted=QK, pairs=GATE_UP),
    "mistral3": Layout(LAYER, permuted=QK),
    "olmo2": Layout({**ATTENTION, **QK_NORM, **POST_NORM, **MLP}),
    "phi3": Layout({**LAYER, **FUSED}),
    "qwen2": Layout(LAYER),
    "qwen2moe": Layout(
        {**ATTENTION, **NORMS, **EXPERTS, **SHARED_EXPERT},
        pairs=GATE_UP,
        added={"ffn_gate_inp_shexp.weight": 0},
    ),
    "qwen3": Layout({**LAYER, **QK_NORM}),
    "qwen3moe": Layout({**ATTENTION, **NORMS, **QK_NORM, **EXPERTS}, pairs=GATE_UP),
    "smollm3": Layout(LAYER, permuted=QK),
    "stablelm": Layout(LAYER),
    "starcoder2": Layout(
        {**ATTENTION, **NORMS, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
    ),
}
