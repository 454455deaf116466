"""Tiny random configurations of models that see pictures and write about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers

from .zoo import _DECODER, VOCABULARY, WINDOW

__all__ = ["BEHIND", "EVEN", "PICTURED", "PLACEHOLDER", "SIZED", "TOWER", "pictured"]

PLACEHOLDER = 7
BEHIND = VOCABULARY
"""A placeholder that the table of embeddings ends before."""
_TEXT = {**_DECODER, "num_hidden_layers": 2}
TOWER = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 24,
    "patch_size": 8,
}
CLIP, SIGLIP = ({**TOWER, "model_type": f"{name}_vision_model"} for name in ("clip", "siglip"))
# Of 4 x 4 parts, which are put together two by two.
EVEN = {**TOWER, "num_hidden_layers": 2, "image_size": 32}
# 10 of them lie on boundaries that no float32 is.
_TENTHS = {**TOWER, "num_hidden_layers": 2, "image_size": 40, "patch_size": 4}
_NORMED = {"use_qk_norm": True, "norm_type": "rms_norm", "use_mean_pooling": False}
_WINDOW = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}


def pictured(
    name: str, text: str, tower: dict[str, Any], more: dict[str, Any] | None = None, **options: Any
) -> Callable[[], Any]:
    """A configuration whose text part is of the kind ``text``, with ``more`` of its own."""
    words = {**_TEXT, "model_type": text, **(more or {})}
    known = {"image_token_id": PLACEHOLDER, "tie_word_embeddings": False, **options}
    if name in ("LlavaConfig", "Gemma3Config", "Mistral3Config"):
        known["image_token_index"] = known.pop("image_token_id")
    made = getattr(transformers, name)
    return lambda: made(text_config={**words}, vision_config={**tower}, **known)


def _llava(
    text: str, tower: dict[str, Any], more: dict[str, Any] | None = None, **options: Any
) -> Callable[[], Any]:
    names = {"layer": "vision_feature_layer", "select": "vision_feature_select_strategy"}
    known = {names.get(name, name): value for name, value in options.items()}
    return pictured("LlavaConfig", text, tower, more, **known)


def _gemma3(**options: Any) -> Callable[[], Any]:
    """Tokens of a picture see each other, in a window that is shorter than a picture, too."""
    tower = {**EVEN, "model_type": "siglip_vision_model"}
    layers = {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 16}
    more = {**layers, "sliding_window": WINDOW, "query_pre_attn_scalar": 16}
    return pictured("Gemma3Config", "gemma3_text", tower, more, **options)


# name -> (configuration, how many tokens stand for a picture)
PICTURED: dict[str, tuple[Callable[[], Any], int]] = {
    "smolvlm": (pictured("SmolVLMConfig", "llama", EVEN, scale_factor=2), 4),
    "smolvlm-of-one": (pictured("SmolVLMConfig", "llama", EVEN, scale_factor=4), 1),
    "idefics3": (pictured("Idefics3Config", "llama", _TENTHS, scale_factor=5), 4),
    "idefics3-tied": (
        pictured("Idefics3Config", "llama", TOWER, scale_factor=1, tie_word_embeddings=True),
        9,
    ),
    "llava": (_llava("llama", CLIP), 9),
    "llava-with-class": (_llava("llama", CLIP, layer=2, select="full"), 10),
    "llava-of-layers": (_llava("llama", CLIP, layer=[-2, 1, 0]), 9),
    "llava-siglip": (_llava("llama", SIGLIP, layer=-1, select="full"), 9),
    "llava-qwen2": (_llava("qwen2", CLIP, _WINDOW, tie_word_embeddings=True), 9),
    "llava-mistral": (_llava("mistral", CLIP, {"sliding_window": WINDOW}), 9),
    "llava-behind": (_llava("llama", CLIP, image_token_id=BEHIND), 9),
    "internvl": (pictured("InternVLConfig", "qwen2", EVEN), 4),
    "internvl-normed": (pictured("InternVLConfig", "qwen2", {**EVEN, **_NORMED}), 4),
    "internvl-without-places": (
        pictured("InternVLConfig", "qwen2", {**EVEN, "use_absolute_position_embeddings": False}),
        4,
    ),
    # The last one, but not normed.
    "internvl-layer": (
        pictured("InternVLConfig", "llama", {**EVEN, **_NORMED}, vision_feature_layer=2),
        4,
    ),
    "gemma3": (_gemma3(mm_tokens_per_image=4), 4),
    "gemma3-behind": (_gemma3(mm_tokens_per_image=16, image_token_id=BEHIND), 16),
}


_PATCHES = {
    "depth": 4,
    "num_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": _TEXT["hidden_size"],
    "patch_size": 4,
    "spatial_merge_size": 2,
}
_AXES = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]}
_STATES = {
    "layer_types": ["linear_attention", "full_attention"],
    **{f"linear_num_{each}_heads": 2 for each in ("key", "value")},
    **{f"linear_{each}_head_dim": 16 for each in ("key", "value")},
    "rope_parameters": {**_AXES, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]},
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_SQUARE = {"num_position_embeddings": 25}


def _sized(
    name: str, text: str, tower: dict[str, Any], more: dict[str, Any] | None = None, **options: Any
) -> Callable[[], Any]:
    """One for pictures of any size."""
    words = {"head_dim": 16, "rope_parameters": _AXES, **(more or {})}
    if name in ("Qwen2VL", "Qwen2_5_VL"):  # whose heads are as wide as their number says
        words |= {"head_dim": None, "rope_parameters": {**_AXES, "mrope_section": [1, 2, 1]}}
    return pictured(f"{name}Config", text, {**_PATCHES, **tower}, words, **options)


def _gemma4(
    tower: dict[str, Any] | None = None, more: dict[str, Any] | None = None, **text: Any
) -> Callable[[], Any]:
    """One whose layers are given more of each token, and share caches."""
    eyes = {**SQUARES, **(tower or {})}
    words = {**OWN_LAYERS, **(more or {}), **text}
    told: dict[str, Any] = {"audio_config": None, "video_token_id": 8, "audio_token_id": 9}
    if tower:
        told["audio_token_id"] = None
    return pictured("Gemma4Config", "gemma4_text", eyes, words, **told)


PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "head_dim": 16,
    "patch_size": 4,
    "image_size": 96,
}
SQUARES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "patch_size": 4,
    "pooling_kernel_size": 3,
    "position_embedding_size": 64,
}
RASTER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
    "image_size": 20,
}
BLOCKS = {**_PATCHES, "depth": 2, "temporal_patch_size": 2}
_HALVES = {
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rope_parameters": {**_AXES, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]},
}
OWN_LAYERS = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "sliding_window": WINDOW,
    "head_dim": 16,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "pad_token_id": 3,
}
SHARED = {
    **_TEXT,
    **OWN_LAYERS,
    "model_type": "gemma4_text",
    "use_bidirectional_attention": "vision",
}
PLAIN_LAYERS = {
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
}
# For pictures of any size: name -> (configuration, distinct layers).
SIZED: dict[str, tuple[Callable[[], Any], int]] = {
    "qwen2_vl": (
        _sized("Qwen2VL", "qwen2_vl_text", {"embed_dim": 32, "hidden_size": _TEXT["hidden_size"]}),
        2,
    ),
    "qwen2_5_vl": (
        _sized(
            "Qwen2_5_VL", "qwen2_5_vl_text", {"window_size": 24, "fullatt_block_indexes": [1, 3]}
        ),
        3,
    ),
    "qwen2_5_vl-without-windows": (
        _sized(
            "Qwen2_5_VL",
            "qwen2_5_vl_text",
            {"window_size": 24, "fullatt_block_indexes": [0, 1, 2, 3]},
        ),
        2,
    ),
    "qwen3_vl": (
        _sized("Qwen3VL", "qwen3_vl_text", {**_SQUARE, "deepstack_visual_indexes": [2, 0]}),
        2,
    ),
    "qwen3_vl-plain": (
        _sized("Qwen3VL", "qwen3_vl_text", {**_SQUARE, "deepstack_visual_indexes": []}),
        2,
    ),
    "qwen3_vl_moe": (
        _sized(
            "Qwen3VLMoe",
            "qwen3_vl_moe_text",
            {**_SQUARE, "deepstack_visual_indexes": [1]},
            _EXPERTS,
        ),
        2,
    ),
    "qwen3_5": (_sized("Qwen3_5", "qwen3_5_text", _SQUARE, _STATES), 3),
    "qwen3_5_moe": (
        _sized("Qwen3_5Moe", "qwen3_5_moe_text", _SQUARE, {**_STATES, **_EXPERTS}),
        3,
    ),
    "gemma4": (_gemma4(), 5),
    "gemma4-clipped": (_gemma4({"use_clipped_linears": True, "standardize": True}), 5),
    "gemma4-mutual": (
        _gemma4({"num_key_value_heads": 1}, PLAIN_LAYERS, use_bidirectional_attention="vision"),
        3,
    ),
    "mistral3": (pictured("Mistral3Config", "mistral", PIXTRAL, spatial_merge_size=2), 2),
    "mistral3-layer": (
        pictured(
            "Mistral3Config",
            "ministral3",
            PIXTRAL,
            spatial_merge_size=3,
            vision_feature_layer=-2,
            multimodal_projector_bias=True,
        ),
        2,
    ),
    "paddleocr_vl": (
        pictured(
            "PaddleOCRVLConfig",
            "paddleocr_vl_text",
            RASTER,
            {"head_dim": 16, "rope_parameters": _AXES},
        ),
        2,
    ),
    "glm_ocr": (
        pictured(
            "GlmOcrConfig",
            "glm_ocr_text",
            BLOCKS,
            {"rope_parameters": {**_AXES, "mrope_section": [1, 2, 1]}},
        ),
        2,
    ),
    "glm4v": (
        pictured("Glm4vConfig", "glm4v_text", {**BLOCKS, "image_size": 20}, _HALVES),
        2,
    ),
    "glm46v": (
        pictured(
            "Glm46VConfig",
            "glm4v_text",
            {**BLOCKS, "image_size": 12, "model_type": "glm4v_vision"},
            _HALVES,
        ),
        2,
    ),
    "lighton_ocr": (pictured("LightOnOcrConfig", "qwen3", PIXTRAL, spatial_merge_size=2), 2),
    "pixtral": (_llava("mistral", PIXTRAL, layer=-1, select="full"), 2),
}
