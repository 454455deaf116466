"""Tiny GGUF files, written the way llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 96
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
# Of a test, for each its file's architecture and what is particular about its configuration.
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "head_dim": 16},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "phi3": {"model_type": "phi3"},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 16,
        "tie_word_embeddings": True,
    },
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 4,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "tie_word_embeddings": True,
    },
    "gpt-oss": {
        "model_type": "gpt_oss",
        "head_dim": 32,
        "sliding_window": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 32 * 4096,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 150000.0,
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
    },
    "ministral3": {
        "model_type": "ministral3",
        "head_dim": 32,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 32.0,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 4,
        },
    },
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2moe": {
        "model_type": "qwen2_moe",
        **EXPERTS,
        "shared_expert_intermediate_size": 48,
    },
    "qwen3moe": {"model_type": "qwen3_moe", "head_dim": 32, **EXPERTS, "norm_topk_prob": True},
    "granite": {
        "model_type": "granite",
        "attention_multiplier": 0.0625,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.25,
        "logits_scaling": 8.0,
        "tie_word_embeddings": True,
    },
    "olmo2": {"model_type": "olmo2"},
    "olmo3": {
        "model_type": "olmo3",
        "num_hidden_layers": 4,
        "sliding_window": 4,
        "max_position_embeddings": 256,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "attention_factor": 1.25,
                "original_max_position_embeddings": 32,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 4, "tie_word_embeddings": True},
    "glm4": {"model_type": "glm4", "head_dim": 32, "attention_bias": True},
    "lfm2": {
        "model_type": "lfm2",
        "layer_types": ["conv", "full_attention"],
        "block_auto_adjust_ff_dim": False,
        "tie_word_embeddings": True,
    },
    "starcoder2": {"model_type": "starcoder2", "tie_word_embeddings": True},
    "stablelm": {"model_type": "stablelm", "use_qkv_bias": True},
    "stablelm parallel": {"model_type": "stablelm", "use_parallel_residual": True},
    "cohere2": {
        "model_type": "cohere2",
        "num_hidden_layers": 4,
        "sliding_window": 4,
        "logit_scale": 0.25,
        "tie_word_embeddings": True,
    },
    "exaone4": {"model_type": "exaone4", "num_hidden_layers": 4, "sliding_window": 4},
    "exaone4 small": {
        "model_type": "exaone4",
        "sliding_window": None,
        "layer_types": ["full_attention"] * 2,
    },
    "gpt2": {"model_type": "gpt2", "intermediate_size": 256, "tie_word_embeddings": True},
}
WINDOWS = ("cohere2", "exaone4", "gemma2", "gemma3_text", "gpt_oss", "olmo3")
EPSILONS = {
    "rms_norm_eps": GGUFWriter.add_layer_norm_rms_eps,
    "norm_eps": GGUFWriter.add_layer_norm_rms_eps,
    "layer_norm_eps": GGUFWriter.add_layer_norm_eps,
    "layer_norm_epsilon": GGUFWriter.add_layer_norm_eps,
    "norm_epsilon": GGUFWriter.add_layer_norm_eps,
}
PERMUTED = ("granite", "llama", "ministral3", "mixtral", "smollm3")
GPT2_TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
FILED = {
    "ministral3": "mistral3",
    "mixtral": "llama",
    "olmo3": "olmo2",
}  # under which name llama.cpp has it, where that is another


def configuration(name: str, **changes: Any) -> Any:
    """Of the model of a test."""
    return AutoConfig.for_model(**{**SIZES, **MODELS[name], **changes})


def architecture_of(name: str) -> str:
    """What a file calls the model of a test."""
    return FILED.get(name, name.split()[0])


def tiny_model(architecture: str, **changes: Any) -> Any:
    """A random model; norms are random too, so that a forgotten offset shows."""
    torch.manual_seed(3)
    config = configuration(architecture, **changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name or "sinks" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def write(
    path: Path,
    architecture: str,
    model: Any,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    extra: dict[str, np.ndarray] | None = None,
    **keys: Any,
) -> Path:
    """Write ``model``; matrices in the type ``kind``, everything else in float32."""
    architecture = architecture_of(architecture)
    writer = GGUFWriter(path, architecture)
    add_metadata(writer, model.config)
    add_keys(writer, keys)
    add_vocabulary(writer)
    for name, array in {**tensors(architecture, model), **(extra or {})}.items():
        matrix = array.ndim >= 2 and name.endswith(".weight")
        data = gguf.quantize(array, kind) if matrix else array.astype(np.float32)
        writer.add_tensor(name, data, raw_dtype=kind if matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_keys(writer: GGUFWriter, keys: dict[str, Any]) -> None:
    """Further keys, with two underlines for a point."""
    for name, value in keys.items():
        kind = gguf.GGUFValueType.get_type(value)
        writer.add_key_value(f"{writer.arch}.{name.replace('__', '.')}", value, kind)


def add_metadata(writer: GGUFWriter, config: Any) -> None:
    """What the converter says of a configuration."""
    heads, kind = config.num_attention_heads, config.model_type
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    writer.add_head_count(heads)
    for name, add in EPSILONS.items():
        if hasattr(config, name):
            add(writer, getattr(config, name))
    if kind == "gpt2":
        return
    kv_heads = config.num_key_value_heads
    if kind == "lfm2":
        kv_heads = [kv_heads if each != "conv" else 0 for each in config.layer_types]
        writer.add_shortconv_l_cache(config.conv_L_cache)
    writer.add_head_count_kv(kv_heads)
    head_dim = getattr(config, "head_dim", None)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    rotary = rope.get("partial_rotary_factor", 1.0) * (head_dim or config.hidden_size // heads)
    writer.add_rope_dimension_count(int(rotary))
    if head_dim:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    add_particular(writer, config)
    writer.add_rope_freq_base(rope["rope_theta"])
    add_experts(writer, config)
    if rope.get("rope_type") == "yarn":
        add_yarn(writer, rope)


def add_particular(writer: GGUFWriter, config: Any) -> None:
    """What the converter says of some architectures alone."""
    kind = config.model_type
    if kind in WINDOWS and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
    if kind in ("exaone4", "olmo3") and config.sliding_window:
        pattern = [each == "sliding_attention" for each in config.layer_types]
        writer.add_sliding_window_pattern(pattern)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if kind == "cohere2":
        writer.add_logit_scale(config.logit_scale)
    if kind == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if kind == "stablelm":
        writer.add_parallel_residual(True)  # where its configuration says nothing, too
    if kind == "ministral3":
        writer.add_rope_scaling_yarn_log_mul(config.rope_parameters["mscale_all_dim"])
        writer.add_attn_temperature_scale(config.rope_parameters["llama_4_scaling_beta"])


def add_experts(writer: GGUFWriter, config: Any) -> None:
    experts = getattr(config, "num_local_experts", getattr(config, "num_experts", None))
    if experts is None:
        return
    writer.add_expert_count(experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    if config.model_type != "mixtral":
        size = getattr(config, "moe_intermediate_size", config.intermediate_size)
        writer.add_expert_feed_forward_length(size)
    if shared := getattr(config, "shared_expert_intermediate_size", None):
        writer.add_expert_shared_feed_forward_length(shared)


def add_yarn(writer: GGUFWriter, rope: dict[str, Any]) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if "attention_factor" in rope:
        writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])


def add_vocabulary(writer: GGUFWriter) -> None:
    """A sentencepiece vocabulary: control tokens, bytes left out, letters and a few words."""
    words = ["<pad>", "<s>", "</s>", "<unk>"] + [chr(code) for code in range(97, 123)]
    words += ["▁", "▁a", "ab", "▁ab"]
    words += [f"<extra{index}>" for index in range(VOCABULARY - len(words))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_scores([-float(index) for index in range(len(words))])
    writer.add_token_types([3, 3, 3, 2] + [1] * (len(words) - 4))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_chat_template("{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}")


def tensors(architecture: str, model: Any) -> dict[str, np.ndarray]:
    """The model's weights under GGUF names, with the converter's changes of value."""
    config = model.config
    names = gguf.get_tensor_name_map(
        {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture],
        config.num_hidden_layers,
    )
    found = {}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        for stored, array in converted(name, parameter.numpy().copy(), config).items():
            stem, _, suffix = stored.rpartition(".")
            found[f"{names.get_name(stem)}.{suffix}"] = array
    return found


def converted(name: str, array: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """A tensor as the converter writes it: under the names that it looks up, values changed."""
    kind, stem = config.model_type, name.rpartition(".")[0]
    if kind.startswith("gemma") and stem.endswith("norm"):
        return {name: array + 1}
    if kind in PERMUTED and stem.endswith(("q_proj", "k_proj")):
        heads = config.num_attention_heads if "q_proj" in stem else config.num_key_value_heads
        return {name: permuted(array, heads)}
    if kind == "gpt2" and name.endswith(GPT2_TURNED):
        return {name: array.T}
    if ".conv.conv." in name:
        return {name: array[:, 0]}
    if name.endswith(".sinks"):
        return {f"{name}.weight": array}
    if "shared_expert_gate" in name:
        return {name: array[0]}
    if ".experts." in name:
        return experts(name, array, in_turns=kind == "gpt_oss")
    return {name: array}


def experts(name: str, array: np.ndarray, in_turns: bool) -> dict[str, np.ndarray]:
    """Stacks of experts, gate and up apart."""
    suffix = ".bias" if name.endswith("_bias") else ".weight"
    stem = name.removesuffix("_bias")
    if in_turns and suffix == ".weight":
        array = array.swapaxes(-1, -2)
    if not stem.endswith("gate_up_proj"):
        return {stem + suffix: array}
    gate, up = (array[:, ::2], array[:, 1::2]) if in_turns else np.split(array, 2, axis=1)
    stem = stem.removesuffix("gate_up_proj")
    return {f"{stem}gate_proj{suffix}": gate, f"{stem}up_proj{suffix}": up}


def permuted(array: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of rows: the two of a rotary pair become neighbours."""
    size = array.shape[0] // heads
    split = array.reshape(heads, 2, size // 2, *array.shape[1:])
    return split.swapaxes(1, 2).reshape(array.shape)
