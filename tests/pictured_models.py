"""Tiny models that see pictures and write: their kinds, configurations and weights."""

from __future__ import annotations

from typing import Any

__all__ = [
    "AXED",
    "GEMMA4",
    "GLM",
    "GRIDS",
    "KINDS",
    "PATCH",
    "PIXTRALS",
    "QWENS",
    "SIDE",
    "TOKEN",
    "network",
]

SIDE, TOKEN = 32, 190
PATCH = 8
"""Rows and columns of a patch of pictures of any size, four of which are a token."""
QWENS = ("qwen2_5_vl", "qwen3_vl", "qwen3_5")
"""Those for pictures of any size, and with positions of them: in windows, with features of several
layers, with states."""
GLM = ("glm_ocr", "glm4v")
AXED = (*QWENS, "paddleocr_vl", *GLM)
"""Whose pictures have positions."""
GEMMA4 = ("gemma4", "gemma4-mutual")
"""Of the second the tokens of a picture see each other."""
PIXTRALS = ("mistral3", "lighton_ocr")
"""Of the first, marks stand behind each row of a picture."""
GRIDS = (*AXED, *GEMMA4, *PIXTRALS)
"""All of those for pictures of any size."""
KINDS = ("smolvlm", "llava", "internvl", "gemma3", *GRIDS)
TEXT = {
    "vocab_size": 200,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 320,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
SEES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
"""Of those whose pictures have positions."""


def _grid_config(kind: str) -> Any:
    """Of a model for pictures of any size."""
    import transformers

    text = {**TEXT, "head_dim": 16, "rope_parameters": {**ROPE}}
    eyes = {"depth": 3, "num_heads": 2, "hidden_size": 32, "intermediate_size": 48}
    eyes |= {"out_hidden_size": 64, "patch_size": PATCH, "spatial_merge_size": 2}
    if kind == "qwen2_5_vl":
        eyes |= {"window_size": 4 * PATCH, "fullatt_block_indexes": [1]}
        kinds = transformers.Qwen2_5_VLConfig
    elif kind == "qwen3_vl":
        eyes |= {"num_position_embeddings": 36, "deepstack_visual_indexes": [0, 1]}
        kinds = transformers.Qwen3VLConfig
    else:
        eyes |= {"num_position_embeddings": 36}
        text |= {"layer_types": ["linear_attention", "full_attention"]}
        text |= {f"linear_num_{each}_heads": 2 for each in ("key", "value")}
        text |= {f"linear_{each}_head_dim": 16 for each in ("key", "value")}
        half = {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
        text["rope_parameters"] = {**ROPE, **half}
        kinds = transformers.Qwen3_5Config
    told = {"image_token_id": TOKEN, "vision_start_token_id": TOKEN + 1}
    told |= {"vision_end_token_id": TOKEN + 2, "video_token_id": TOKEN + 3}
    return kinds(text_config=text, vision_config=eyes, **told)


def _gemma4_config(mutual: bool) -> Any:
    """Layers share caches, and are given something of each token besides; or pictures see
    themselves."""
    import transformers

    text = {**TEXT, "num_hidden_layers": 3, "num_kv_shared_layers": 1, "sliding_window": 24}
    text |= {"layer_types": ["sliding_attention", "full_attention", "full_attention"]}
    text |= {"head_dim": 16, "global_head_dim": 32, "hidden_size_per_layer_input": 8}
    text |= {"vocab_size_per_layer_input": TEXT["vocab_size"]}
    if mutual:
        text |= {"use_bidirectional_attention": "vision", "num_kv_shared_layers": 0}
        text |= {"hidden_size_per_layer_input": 0, "sliding_window": 10}
    eyes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
    eyes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "use_clipped_linears": True}
    eyes |= {"patch_size": PATCH, "pooling_kernel_size": 2, "position_embedding_size": 160}
    told = {"image_token_id": TOKEN, "boi_token_id": TOKEN + 1, "eoi_token_id": TOKEN + 2}
    told |= {"video_token_id": TOKEN + 3, "audio_token_id": TOKEN + 4}
    ears = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ears |= {"subsampling_conv_channels": [8, 4], "output_proj_dims": 32}
    parts = {"vision_config": eyes, "audio_config": None if mutual else ears}
    return transformers.Gemma4Config(text_config=text, **parts, **told)


def _pixtral_config(kind: str) -> Any:
    import transformers

    eyes = {**SEES, "model_type": "pixtral", "head_dim": 16, "patch_size": PATCH}
    text = {**TEXT, "model_type": "mistral" if kind == "mistral3" else "qwen3", "head_dim": 16}
    told = {"spatial_merge_size": 2, "tie_word_embeddings": False}
    if kind == "mistral3":
        told["image_token_index"] = TOKEN
        return transformers.Mistral3Config(text_config=text, vision_config=eyes, **told)
    told["image_token_id"] = TOKEN
    return transformers.LightOnOcrConfig(text_config=text, vision_config=eyes, **told)


def _paddleocr_config() -> Any:
    import transformers

    text = {**TEXT, "head_dim": 16, "rope_parameters": {**ROPE}}
    eyes = {**SEES, "patch_size": PATCH, "image_size": 6 * PATCH}
    told = {"image_token_id": TOKEN, "vision_start_token_id": TOKEN + 1}
    told |= {"vision_end_token_id": TOKEN + 2, "video_token_id": 9}
    return transformers.PaddleOCRVLConfig(text_config=text, vision_config=eyes, **told)


def _glm_config(kind: str) -> Any:
    import transformers

    text = {**TEXT, "rope_parameters": {**ROPE}}
    if kind == "glm4v":
        half = {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
        text["rope_parameters"] = {**ROPE, **half}
    eyes = {"depth": 2, "num_heads": 2, "hidden_size": 32, "intermediate_size": 48}
    eyes |= {"out_hidden_size": 64, "patch_size": PATCH, "image_size": 6 * PATCH}
    told = {"image_token_id": TOKEN, "image_start_token_id": TOKEN + 1}
    told |= {"image_end_token_id": TOKEN + 2, "video_token_id": 9}
    told |= {"video_start_token_id": 8, "video_end_token_id": 7}
    made = transformers.GlmOcrConfig if kind == "glm_ocr" else transformers.Glm4vConfig
    return made(text_config=text, vision_config=eyes, **told)


def _config(kind: str) -> Any:
    import transformers

    if kind in GLM:
        return _glm_config(kind)
    if kind == "paddleocr_vl":
        return _paddleocr_config()
    if kind in QWENS:
        return _grid_config(kind)
    if kind in GEMMA4:
        return _gemma4_config(kind != "gemma4")
    if kind in PIXTRALS:
        return _pixtral_config(kind)
    if kind == "internvl":
        eyes = {**SEES, "image_size": [SIDE, SIDE], "patch_size": [8, 8]}
        text = {**TEXT, "model_type": "qwen2"}
        how = {"vision_config": eyes, "downsample_ratio": 0.5, "image_seq_length": 4}
        return transformers.InternVLConfig(text_config=text, image_token_id=TOKEN, **how)
    if kind == "gemma3":
        layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6}
        text = {**TEXT, **layers, "model_type": "gemma3_text", "head_dim": 16}
        text |= {"query_pre_attn_scalar": 16}
        eyes = {**SEES, "model_type": "siglip_vision_model", "patch_size": 8}
        how = {"vision_config": eyes, "mm_tokens_per_image": 4}
        return transformers.Gemma3Config(text_config=text, image_token_index=TOKEN, **how)
    text = {**TEXT, "model_type": "llama"}
    if kind == "llava":
        eyes = {**SEES, "model_type": "clip_vision_model", "patch_size": 8, "projection_dim": 16}
        how = {"vision_config": eyes, "image_token_index": TOKEN}
        return transformers.LlavaConfig(text_config=text, **how)
    how = {"scale_factor": 2, "image_token_id": TOKEN, "pad_token_id": 0}
    eyes = {**SEES, "patch_size": 8}
    return transformers.SmolVLMConfig(text_config=text, vision_config=eyes, **how)


BOUNDS = ("input_min", "input_max", "output_min", "output_max")
"""Of the clipped layers of Gemma 4."""


def network(kind: str) -> Any:
    """A model whose answers depend on the picture: weights as loud as those of trained ones."""
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    made = AutoModelForImageTextToText.from_config(_config(kind)).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.12 if kind == "gemma3" else 0.08)
            elif kind in GEMMA4 and name.endswith(("q_norm.weight", "k_norm.weight")):
                weight.fill_(0.25)  # scores are not scaled: of 1 each query would see one key
        for name, bound in made.named_buffers():
            if name.endswith(BOUNDS):
                bound.fill_(4 if name.endswith("max") else -3.5)
    return made
