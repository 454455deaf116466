"""Tiny GGUF files, written the way llama.cpp's converter writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from tests.export.gguf_models import (
    MODELS,
    VOCABULARY,
    architecture_of,
    configuration,
    tiny_model,
)
from tests.export.q4_k import q4_k

__all__ = [
    "MODELS",
    "add_keys",
    "add_metadata",
    "architecture_of",
    "configuration",
    "tiny_model",
    "write",
]

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


def write(
    path: Path,
    architecture: str,
    model: Any,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    extra: dict[str, np.ndarray] | None = None,
    others: Mapping[str, GGMLQuantizationType] | None = None,
    **keys: Any,
) -> Path:
    """Write ``model``; matrices in the type ``kind``, those with a part of their name in ``others``
    in that of there, everything else in float32."""
    architecture = architecture_of(architecture)
    writer = GGUFWriter(path, architecture)
    add_metadata(writer, model.config)
    add_keys(writer, keys)
    add_vocabulary(writer)
    for name, array in {**tensors(architecture, model), **(extra or {})}.items():
        matrix = array.ndim >= 2 and name.endswith(".weight")
        own = next((other for part, other in (others or {}).items() if part in name), kind)
        data = _packed(array, own) if matrix else array.astype(np.float32)
        writer.add_tensor(name, data, raw_dtype=own if matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _packed(matrix: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    if kind != GGMLQuantizationType.Q4_K:
        return np.asarray(gguf.quantize(matrix, kind))
    rows = matrix.reshape(-1, matrix.shape[-1])
    return q4_k(rows).reshape(*matrix.shape[:-1], -1)


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
    width = getattr(config, "intermediate_size", 4 * config.hidden_size)
    if getattr(config, "use_double_wide_mlp", False):
        shared = config.num_kv_shared_layers
        width = [width] * (config.num_hidden_layers - shared) + [2 * width] * shared
    writer.add_feed_forward_length(width)
    writer.add_head_count(heads)
    for name, add in EPSILONS.items():
        if hasattr(config, name):
            add(writer, getattr(config, name))
    if kind == "gpt2":
        return
    if kind == "gemma4_text":
        add_gemma4(writer, config)
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


def add_gemma4(writer: GGUFWriter, config: Any) -> None:
    """Of the two kinds of layers that it has."""
    full = config.per_layer_config[config.layer_types.index("full_attention")]
    local = config.per_layer_config[config.layer_types.index("sliding_attention")]
    sliding = [each == "sliding_attention" for each in config.layer_types]
    heads = local.num_key_value_heads
    if full.num_key_value_heads != heads:
        writer.add_head_count_kv([heads if s else full.num_key_value_heads for s in sliding])
    else:
        writer.add_head_count_kv(heads)
    writer.add_shared_kv_layers(config.num_kv_shared_layers)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern(sliding)
    for size, add in {
        full.head_dim: (writer.add_key_length, writer.add_value_length),
        local.head_dim: (writer.add_key_length_swa, writer.add_value_length_swa),
    }.items():
        for each in add:
            each(size)
    writer.add_rope_dimension_count(full.head_dim)
    writer.add_rope_dimension_count_swa(local.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if config.enable_moe_block:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.top_k_experts)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


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
    if config.model_type == "gemma4_text":  # a quarter of each head is turned
        size = config.per_layer_config[config.layer_types.index("full_attention")].head_dim
        turned = np.arange(size // 2) < size // 8
        found["rope_freqs.weight"] = np.where(turned, 1, 1e30).astype(np.float32)
    return found


def converted(name: str, array: np.ndarray, config: Any) -> dict[str, np.ndarray]:
    """A tensor as the converter writes it: under the names that it looks up, values changed."""
    kind, stem = config.model_type, name.rpartition(".")[0]
    if kind == "gemma4_text":
        return gemma4(name, array)
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


def gemma4(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Its norms are as they are, and its gates and ups stay together."""
    if name.endswith("router.scale"):
        return {name.replace("router.scale", "router.proj.scale"): array}
    if name.endswith("per_expert_scale"):
        return {name.replace("router.per_expert_scale", "experts.down_proj.scale"): array}
    bare = name.endswith("layer_scalar") or ".experts." in name
    return {f"{name}.weight" if bare else name: array}


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
