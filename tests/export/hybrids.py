"""Tiny random configurations of decoders with states: convolutions, linear attention, Mamba-2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import transformers

from .zoo import LENGTH, VOCABULARY

__all__ = ["HYBRIDS", "Hybrid", "endless"]


class Hybrid(NamedTuple):
    """How it must be captured: distinct layers, caches, and states by kind.

    ``layers`` says of each layer what it keeps: a cache, states, both or nothing (a, s, b, -).
    """

    config: Callable[[], Any]
    kinds: int
    caches: int
    conv: int
    recurrent: int
    layers: str
    how: str = "stamped"


_BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LINEAR = {
    "head_dim": 8,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "num_hidden_layers": 3,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
}
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 2,
    "mamba_d_state": 12,
    "mamba_chunk_size": 8,
    "mamba_expand": 2,
}


def _make(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(**options)


def endless(name: str) -> Callable[[], Any]:
    """The configuration of a hybrid whose generations no token ends."""

    def made() -> Any:
        config = HYBRIDS[name].config()
        config.eos_token_id = None
        return config

    return made


HYBRIDS: dict[str, Hybrid] = {
    "lfm2": Hybrid(
        _make(
            "Lfm2Config",
            **_BASE,
            num_hidden_layers=3,
            layer_types=["conv", "full_attention", "conv"],
            block_auto_adjust_ff_dim=False,
        ),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=0,
        layers="sas",
    ),
    # With biases what is padded is not zero where it enters the convolution, in PyTorch neither.
    "lfm2-bias": Hybrid(
        _make(
            "Lfm2Config",
            **_BASE,
            num_hidden_layers=3,
            layer_types=["conv", "full_attention", "conv"],
            block_auto_adjust_ff_dim=False,
            conv_bias=True,
            conv_L_cache=5,
        ),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=0,
        layers="sas",
    ),
    # A kernel of one looks at no earlier token: nothing is kept.
    "lfm2-pointwise": Hybrid(
        _make(
            "Lfm2Config",
            **_BASE,
            num_hidden_layers=3,
            layer_types=["full_attention", "conv", "conv"],
            block_auto_adjust_ff_dim=False,
            conv_bias=True,
            conv_L_cache=1,
        ),
        kinds=2,
        caches=1,
        conv=0,
        recurrent=0,
        layers="a--",
    ),
    "lfm2-moe": Hybrid(
        _make(
            "Lfm2MoeConfig",
            **_BASE,
            num_hidden_layers=3,
            layer_types=["conv", "full_attention", "conv"],
            num_dense_layers=1,
            moe_intermediate_size=16,
            num_experts=4,
            num_experts_per_tok=2,
        ),
        kinds=3,
        caches=1,
        conv=2,
        recurrent=0,
        layers="sas",
    ),
    "qwen3.5": Hybrid(
        _make("Qwen3_5TextConfig", **_BASE, **_LINEAR),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=2,
        layers="ssa",
    ),
    "qwen3.5-moe": Hybrid(
        _make("Qwen3_5MoeTextConfig", **{**_BASE, **_LINEAR, **_EXPERTS}),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=2,
        layers="ssa",
    ),
    "qwen3-next": Hybrid(
        _make("Qwen3NextConfig", **{**_BASE, **_LINEAR, **_EXPERTS}),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=2,
        layers="ssa",
    ),
    "olmo-hybrid": Hybrid(
        _make("OlmoHybridConfig", **{**_BASE, **_LINEAR, "linear_num_value_heads": 2}),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=2,
        layers="ssa",
    ),
    "kimi-linear": Hybrid(
        _make(
            "KimiLinearConfig",
            **{**_BASE, "num_key_value_heads": 4},
            num_hidden_layers=3,
            layer_types=["linear_attention", "linear_attention", "full_attention"],
            mlp_layer_types=["dense", "sparse", "sparse"],
            kv_lora_rank=12,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=8,
            linear_head_dim=8,
            linear_num_heads=4,
            num_local_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
        ),
        kinds=3,
        caches=1,
        conv=2,
        recurrent=2,
        layers="ssa",
    ),
    # Attention and Mamba-2 side by side in each layer.
    "falcon-h1": Hybrid(
        _make("FalconH1Config", **_BASE, **_MAMBA, num_hidden_layers=3, mamba_d_ssm=64),
        kinds=1,
        caches=3,
        conv=3,
        recurrent=3,
        layers="bbb",
    ),
    "bamba": Hybrid(
        _make("BambaConfig", **_BASE, **_MAMBA, num_hidden_layers=3, attn_layer_indices=[1]),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=2,
        layers="sas",
    ),
    "granite-hybrid": Hybrid(
        _make(
            "GraniteMoeHybridConfig",
            **_BASE,
            **_MAMBA,
            num_hidden_layers=3,
            layer_types=["mamba", "attention", "mamba"],
            shared_intermediate_size=48,
            num_local_experts=0,
        ),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=2,
        layers="sas",
    ),
    # One group: the norm behind the scan is a plain one with a gate in front.
    "granite-one-group": Hybrid(
        _make(
            "GraniteMoeHybridConfig",
            **_BASE,
            **{**_MAMBA, "mamba_n_groups": 1},
            num_hidden_layers=2,
            layer_types=["mamba", "attention"],
            shared_intermediate_size=48,
            num_local_experts=0,
        ),
        kinds=2,
        caches=1,
        conv=1,
        recurrent=1,
        layers="sa",
    ),
    "nemotron-h": Hybrid(
        _make(
            "NemotronHConfig",
            **_BASE,
            head_dim=8,
            layers_block_type=["mamba", "attention", "mlp", "moe", "mamba"],
            ssm_state_size=12,
            mamba_num_heads=8,
            mamba_head_dim=8,
            n_groups=2,
            chunk_size=8,
            # Experts without a gate, of a width of their own.
            n_routed_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            moe_shared_expert_intermediate_size=16,
            moe_latent_size=24,
        ),
        kinds=4,
        caches=1,
        conv=2,
        recurrent=2,
        layers="sa--s",
    ),
    "zamba2": Hybrid(
        _make(
            "Zamba2Config",
            **_BASE,
            num_hidden_layers=3,
            layers_block_type=["mamba", "hybrid", "mamba"],
            mamba_d_state=12,
            mamba_ngroups=2,
            n_mamba_heads=8,
            chunk_size=8,
        ),
        kinds=3,
        caches=1,
        conv=3,
        recurrent=3,
        layers="sbs",
    ),
    # No attention at all.
    "mamba2": Hybrid(
        _make(
            "Mamba2Config",
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=3,
            num_heads=8,
            head_dim=8,
            state_size=12,
            n_groups=2,
            chunk_size=8,
        ),
        kinds=1,
        caches=0,
        conv=3,
        recurrent=3,
        layers="sss",
    ),
    "mamba": Hybrid(
        _make(
            "MambaConfig", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=3, state_size=4
        ),
        kinds=1,
        caches=0,
        conv=3,
        recurrent=3,
        layers="sss",
    ),
    "falcon-mamba": Hybrid(
        _make(
            "FalconMambaConfig",
            vocab_size=VOCABULARY,
            hidden_size=32,
            num_hidden_layers=3,
            state_size=4,
        ),
        kinds=1,
        caches=0,
        conv=3,
        recurrent=3,
        layers="sss",
    ),
    "jamba": Hybrid(
        _make(
            "JambaConfig",
            **_BASE,
            num_hidden_layers=3,
            attn_layer_period=3,
            attn_layer_offset=1,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=4,
            num_experts_per_tok=2,
            mamba_d_state=4,
            mamba_dt_rank=4,
        ),
        kinds=2,
        caches=1,
        conv=2,
        recurrent=2,
        layers="sas",
    ),
}
