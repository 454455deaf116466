"""Tiny random configurations of every architecture that the tests compile, one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

VOCABULARY = 99
LENGTH = 64
WINDOW = 4  # shorter than every test sequence

_DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": LENGTH,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_NEOX = {k: v for k, v in _DECODER.items() if k != "num_key_value_heads"}
# Of a model that stays plain each layer is traced: the first, and one behind it.
_PLAIN = 2
_BLOOM = {k: _GPT[k] for k in ("vocab_size", "n_head", "bos_token_id", "eos_token_id")}
# Experts take half of the tokens each; those of the second kind have a size of their own.
_EXPERTS = {**_DECODER, "num_local_experts": 4, "num_experts_per_tok": 2}
_SMALL_EXPERTS = {
    **_DECODER,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 16,
}
# Chosen in groups, by a sigmoid with a bias that does not weigh.
_GROUPED_EXPERTS = {
    **_DECODER,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_group": 4,
    "topk_group": 2,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.5,
}
# Keys and values of each head come from latents: 20 wide, no multiple of 8, and 8; 8 are turned.
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 8,
}
_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
}
_PLAIN_ENCODER = {**_ENCODER, "num_hidden_layers": _PLAIN}
_ROBERTA = {**_ENCODER, "max_position_embeddings": LENGTH + 2, "pad_token_id": 1}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": _PLAIN,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}
_TYPES = ["sliding_attention", "full_attention", "sliding_attention"]


def _make(name: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(**options)


# name -> (configuration, how it must be captured, distinct layers traced)
DECODERS: dict[str, tuple[Callable[[], Any], str, int]] = {
    "llama": (_make("LlamaConfig", **_DECODER), "stamped", 1),
    "mistral": (_make("MistralConfig", **_DECODER, sliding_window=WINDOW), "stamped", 1),
    "qwen2": (
        _make(
            "Qwen2Config",
            **_DECODER,
            use_sliding_window=True,
            sliding_window=WINDOW,
            max_window_layers=1,
        ),
        "stamped",
        2,
    ),
    "qwen3": (_make("Qwen3Config", **_DECODER, head_dim=8), "stamped", 1),
    "gemma2": (
        _make(
            "Gemma2Config",
            **_DECODER,
            head_dim=8,
            sliding_window=WINDOW,
            query_pre_attn_scalar=8,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
        "stamped",
        2,
    ),
    "gemma3": (
        _make(
            "Gemma3TextConfig", **_DECODER, head_dim=8, sliding_window=WINDOW, layer_types=_TYPES
        ),
        "stamped",
        2,
    ),
    "phi3": (_make("Phi3Config", **_DECODER, sliding_window=WINDOW), "stamped", 1),
    "gpt2": (_make("GPT2Config", **_GPT), "stamped", 1),
    # The scale of its attention depends on the layer's own index: no two layers are alike.
    "gpt2-scaled": (
        _make("GPT2Config", **_GPT, scale_attn_by_inverse_layer_idx=True),
        "stamped",
        3,
    ),
    "gpt-neox": (_make("GPTNeoXConfig", **_NEOX), "stamped", 1),
    "gpt-neox-sequential": (
        _make("GPTNeoXConfig", **_NEOX, use_parallel_residual=False),
        "stamped",
        1,
    ),
    "olmo2": (_make("Olmo2Config", **_DECODER), "stamped", 1),
    # Its cos and sin repeat each entry in a row.
    "cohere": (_make("CohereConfig", **_DECODER), "stamped", 1),
    # These call torch's attention themselves.
    "falcon": (_make("FalconConfig", **_NEOX), "stamped", 1),
    "falcon-grouped": (
        _make("FalconConfig", **_NEOX, num_kv_heads=2, new_decoder_architecture=True),
        "stamped",
        1,
    ),
    # These write attention out: the code stays, the cache is ours.
    "falcon-alibi": (
        _make(
            "FalconConfig",
            **{**_NEOX, "num_hidden_layers": _PLAIN},
            alibi=True,
            multi_query=False,
            bias=True,
        ),
        "plain",
        0,
    ),
    "bloom": (
        _make("BloomConfig", **_BLOOM, n_layer=_PLAIN, hidden_size=32),
        "plain",
        0,
    ),
    "gpt-j": (_make("GPTJConfig", **_GPT, rotary_dim=4), "stamped", 1),
    # Mixtures of experts: the router stays the model's own code.
    "mixtral": (_make("MixtralConfig", **_EXPERTS), "stamped", 1),
    "qwen3-moe": (
        _make(
            "Qwen3MoeConfig",
            **_SMALL_EXPERTS,
            head_dim=8,
            norm_topk_prob=True,
            mlp_only_layers=[1],
        ),
        "stamped",
        2,
    ),
    # With attention sinks, biases, gate and up in turns, and a limit that its numbers reach.
    "gpt-oss": (
        _make(
            "GptOssConfig",
            **_EXPERTS,
            head_dim=8,
            sliding_window=WINDOW,
            layer_types=_TYPES,
            swiglu_limit=2.0,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        ),
        "stamped",
        2,
    ),
    "smollm3": (_make("SmolLM3Config", **_DECODER, no_rope_layers=[1, 1, 0]), "stamped", 2),
}

ENCODERS: dict[str, tuple[Callable[[], Any], str]] = {
    "bert": (_make("BertConfig", **_ENCODER), "stamped"),
    "roberta": (_make("RobertaConfig", **_ROBERTA), "stamped"),
    "distilbert": (
        _make(
            "DistilBertConfig",
            vocab_size=VOCABULARY,
            dim=32,
            hidden_dim=64,
            n_layers=3,
            n_heads=4,
            max_position_embeddings=LENGTH,
        ),
        "stamped",
    ),
    "modernbert": (
        _make(
            "ModernBertConfig",
            **_ENCODER,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
            local_attention=6,
            global_attn_every_n_layers=2,
        ),
        "stamped",
    ),
    # Its layers are not marked, and its attention is its own.
    "mpnet": (_make("MPNetConfig", **_PLAIN_ENCODER), "plain"),
    "albert": (_make("AlbertConfig", **_ENCODER, embedding_size=16), "whole"),
    "deberta-v2": (
        _make(
            "DebertaV2Config",
            **_ENCODER,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=8,
        ),
        "stamped",
    ),
}

# More of them, each in one test alone: name -> (configuration, how it must be captured).
MORE_DECODERS: dict[str, tuple[Callable[[], Any], str]] = {
    "apertus": (_make("ApertusConfig", **_DECODER), "stamped"),
    "cohere2": (
        _make("Cohere2Config", **_DECODER, sliding_window=WINDOW, layer_types=_TYPES),
        "stamped",
    ),
    "deepseek-v3": (_make("DeepseekV3Config", **{**_GROUPED_EXPERTS, **_LATENT}), "stamped"),
    "dots1": (_make("Dots1Config", **_GROUPED_EXPERTS), "stamped"),
    "ernie4.5-moe": (
        _make(
            "Ernie4_5_MoeConfig", **_DECODER, moe_intermediate_size=16, moe_num_experts=4, moe_k=2
        ),
        "stamped",
    ),
    "exaone4": (
        _make("Exaone4Config", **_DECODER, sliding_window=WINDOW, layer_types=_TYPES),
        "stamped",
    ),
    "gemma": (_make("GemmaConfig", **_DECODER, head_dim=8), "stamped"),
    # Heads of full attention are wider, and fewer have keys.
    "gemma4": (
        _make(
            "Gemma4TextConfig",
            **_DECODER,
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            hidden_size_per_layer_input=0,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        ),
        "stamped",
    ),
    # Beside the dense layer experts with a gate of Gelu; values are keys that are not turned.
    "gemma4-moe": (
        _make(
            "Gemma4TextConfig",
            **_DECODER,
            head_dim=8,
            global_head_dim=16,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            hidden_size_per_layer_input=0,
            enable_moe_block=True,
            num_experts=8,
            top_k_experts=3,
            moe_intermediate_size=16,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        ),
        "stamped",
    ),
    "glm4": (_make("Glm4Config", **_DECODER, head_dim=8), "stamped"),
    "glm4-moe": (_make("Glm4MoeConfig", **_GROUPED_EXPERTS, head_dim=8), "stamped"),
    "gpt-bigcode": (_make("GPTBigCodeConfig", **_GPT), "stamped"),
    "granite": (
        _make(
            "GraniteConfig",
            **_DECODER,
            embedding_multiplier=2.0,
            logits_scaling=3.0,
            residual_multiplier=0.5,
            attention_multiplier=0.3,
        ),
        "stamped",
    ),
    "granite-moe": (_make("GraniteMoeConfig", **_EXPERTS), "stamped"),
    "minicpm3": (_make("MiniCPM3Config", **{**_DECODER, **_LATENT}), "stamped"),
    "ministral3": (_make("Ministral3Config", **_DECODER, head_dim=8), "stamped"),
    # Experts with other gates than SwiGLU.
    "mixtral-gelu": (_make("MixtralConfig", **_EXPERTS, hidden_act="gelu"), "stamped"),
    "mixtral-relu": (_make("MixtralConfig", **_EXPERTS, hidden_act="relu"), "stamped"),
    "nemotron": (_make("NemotronConfig", **_DECODER), "stamped"),
    "olmo3": (
        _make("Olmo3Config", **_DECODER, sliding_window=WINDOW, layer_types=_TYPES),
        "stamped",
    ),
    "olmoe": (_make("OlmoeConfig", **_DECODER, num_experts=4, num_experts_per_tok=2), "stamped"),
    "opt": (
        _make("OPTConfig", **_NEOX, ffn_dim=64, word_embed_proj_dim=32),
        "stamped",
    ),
    "phi": (_make("PhiConfig", **_DECODER), "stamped"),
    "phi-moe": (_make("PhimoeConfig", **_EXPERTS), "stamped"),
    # Beside the experts one that every token takes.
    "qwen2-moe": (
        _make(
            "Qwen2MoeConfig",
            **_SMALL_EXPERTS,
            shared_expert_intermediate_size=24,
            decoder_sparse_step=2,
        ),
        "stamped",
    ),
    "stablelm": (_make("StableLmConfig", **_DECODER), "stamped"),
    "starcoder2": (_make("Starcoder2Config", **_DECODER, sliding_window=WINDOW), "stamped"),
}

# Layers read keys and values of an earlier layer: name -> (configuration, distinct layers traced,
# caches).
SHARING: dict[str, tuple[Callable[[], Any], int, int]] = {
    # As E2B and E4B: the last layers share, their MLP is wider, and each has an input of its own.
    "gemma4-e2b": (
        _make(
            "Gemma4TextConfig",
            **{**_DECODER, "num_hidden_layers": 7},
            head_dim=8,
            global_head_dim=16,
            hidden_size_per_layer_input=8,
            vocab_size_per_layer_input=VOCABULARY,
            num_kv_shared_layers=3,
            use_double_wide_mlp=True,
            sliding_window=WINDOW,
            layer_types=[
                *["sliding_attention", "full_attention"] * 2,
                *["sliding_attention", "sliding_attention", "full_attention"],
            ],
        ),
        6,
        4,
    ),
}

_BART = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": LENGTH,
    "eos_token_id": 2,
}

MORE_ENCODERS: dict[str, tuple[Callable[[], Any], str]] = {
    # Writes its own text anew, shifted by one token, as transformers runs it for embeddings.
    "bart": (_make("BartConfig", **_BART), "stamped"),
    # Reads by code of its own, with the mask that attention is given where it writes.
    "bigbird-pegasus": (
        _make(
            "BigBirdPegasusConfig", **{**_BART, "encoder_layers": 1}, attention_type="original_full"
        ),
        "plain",
    ),
    "big-bird": (_make("BigBirdConfig", **_PLAIN_ENCODER, attention_type="original_full"), "plain"),
    "camembert": (_make("CamembertConfig", **_ROBERTA), "stamped"),
    "electra": (_make("ElectraConfig", **_ENCODER, embedding_size=16), "stamped"),
    "eurobert": (
        _make("EuroBertConfig", **_ENCODER, pad_token_id=0, bos_token_id=1, eos_token_id=2),
        "stamped",
    ),
    # Their checkpoints have query, key and value in one tensor, the second gate and up as well.
    "nomic-bert": (_make("NomicBertConfig", **_ENCODER), "stamped"),
    "gte": (_make("GteConfig", **_ENCODER), "stamped"),
    # Mixes tokens by a Fourier transform in place of attention.
    "fnet": (_make("FNetConfig", **_ENCODER), "stamped"),
    # One row of its mask stands for all queries.
    "layoutlm": (_make("LayoutLMConfig", **_PLAIN_ENCODER), "plain"),
    "roformer": (_make("RoFormerConfig", **_PLAIN_ENCODER, embedding_size=32), "plain"),
    # What reads of a model that writes as well; it adds a bias to its scores.
    "t5": (_make("T5Config", **_T5), "plain"),
    "umt5": (_make("UMT5Config", **_T5), "plain"),
    "xlm-roberta": (_make("XLMRobertaConfig", **_ROBERTA), "stamped"),
    # Embeds each token together with the one before and the one behind it.
    "mobilebert": (
        _make(
            "MobileBertConfig",
            **_ENCODER,
            embedding_size=16,
            intra_bottleneck_size=16,
            num_feedforward_networks=2,
        ),
        "stamped",
    ),
}

# Heads on decoders: (architecture in DECODERS, task).
HEADS = [
    ("gemma3", "text-classification"),
    ("gpt2", "question-answering"),
    ("gpt2", "token-classification"),
    ("llama", "question-answering"),
    ("llama", "text-classification"),
    ("mistral", "question-answering"),
    ("qwen2", "token-classification"),
    ("qwen3", "text-classification"),
]

# Decoders without their head, for embeddings: name -> (configuration, how it must be captured).
EMBEDDERS: dict[str, tuple[Callable[[], Any], str]] = {
    "llama": (DECODERS["llama"][0], "stamped"),
    "minicpm3": (MORE_DECODERS["minicpm3"][0], "stamped"),
    "qwen3": (DECODERS["qwen3"][0], "stamped"),
}

# name -> (configuration, class, a part of the reason)
REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    # Its layers keep a state in a way of their own.
    "recurrent-gemma": (
        _make("RecurrentGemmaConfig", **_DECODER, attention_window_size=WINDOW),
        "RecurrentGemmaForCausalLM",
        "fixes a size that must stay open (batch, sequence)",
    ),
    "mixtral-tanh": (
        _make("MixtralConfig", **_EXPERTS, hidden_act="tanh"),
        "MixtralForCausalLM",
        "stamped: mixtures of experts are supported with gates of SwiGLU, Gelu and Relu alone "
        "(MixtralExperts with Tanh",
    ),
    "xlnet": (
        _make("XLNetConfig", vocab_size=VOCABULARY, d_model=32, n_layer=2, n_head=4, d_inner=64),
        "XLNetLMHeadModel",
        "no translation for an op of the model at transformer (aten.eye.default)",
    ),
}
