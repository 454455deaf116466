"""Tiny random configurations of models that see, and how each must be captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .zoo import _make

SIZE = 32
_VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 8,
}
_STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
_SWIN = {
    "image_size": SIZE,
    "patch_size": 4,
    "embed_dim": 16,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
_PYRAMID = {
    "image_size": SIZE,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 3, 4],
}
_PROJECTION = ["CLIPVisionModelWithProjection"]
_TEXT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}

# name -> (configuration, how it must be captured)
FEATURES: dict[str, tuple[Callable[[], Any], str]] = {
    "vit": (_make("ViTConfig", **_VIT), "stamped"),
    "deit": (_make("DeiTConfig", **_VIT), "stamped"),
    "dinov2": (_make("Dinov2Config", **_VIT), "stamped"),
    "dinov2-gated": (_make("Dinov2Config", **_VIT, use_swiglu_ffn=True), "stamped"),
    "dinov2-registers": (
        _make("Dinov2WithRegistersConfig", **_VIT, num_register_tokens=2),
        "stamped",
    ),
    "dinov3": (_make("DINOv3ViTConfig", **_VIT, num_register_tokens=2), "stamped"),
    "dinov3-convnext": (_make("DINOv3ConvNextConfig", **_STAGES, image_size=SIZE), "whole"),
    "clip": (_make("CLIPVisionConfig", **_VIT), "stamped"),
    "clip-projection": (
        _make("CLIPVisionConfig", **_VIT, projection_dim=24, architectures=_PROJECTION),
        "stamped",
    ),
    "siglip": (_make("SiglipVisionConfig", **_VIT), "stamped"),
    "vit-msn": (_make("ViTMSNConfig", **_VIT), "stamped"),
    "ijepa": (_make("IJepaConfig", **_VIT), "stamped"),
    # Positions of a grid that is another than that of the picture.
    "pixio": (_make("PixioConfig", **_VIT), "stamped"),
    # A bias of relative positions, which goes into attention beside no mask.
    "beit": (_make("BeitConfig", **_VIT, use_relative_position_bias=True), "plain"),
    "data2vec": (_make("Data2VecVisionConfig", **_VIT, use_relative_position_bias=True), "stamped"),
    "swin": (_make("SwinConfig", **_SWIN), "plain"),
    "swinv2": (_make("Swinv2Config", **_SWIN), "whole"),
    "convnext": (_make("ConvNextConfig", **_STAGES, image_size=SIZE), "whole"),
    "convnextv2": (_make("ConvNextV2Config", **_STAGES, image_size=SIZE), "whole"),
    "resnet": (_make("ResNetConfig", **_STAGES, embedding_size=16, image_size=SIZE), "whole"),
    "bit": (
        _make(
            "BitConfig",
            embedding_size=16,
            hidden_sizes=[32, 32, 64, 64],
            depths=[1, 1, 2, 1],
            num_groups=4,
            image_size=SIZE,
        ),
        "whole",
    ),
    "regnet": (
        _make("RegNetConfig", **_STAGES, embedding_size=16, groups_width=8, image_size=SIZE),
        "whole",
    ),
    "mobilenet-v2": (_make("MobileNetV2Config", image_size=SIZE, depth_multiplier=0.25), "whole"),
    "mobilevit": (
        _make(
            "MobileViTConfig",
            image_size=SIZE,
            hidden_sizes=[16, 24, 32],
            neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
            num_attention_heads=4,
        ),
        "whole",
    ),
    # Its patches are unfolded, and folded again.
    "mobilevit-v2": (
        _make("MobileViTV2Config", image_size=SIZE, width_multiplier=0.25, output_stride=8),
        "whole",
    ),
    "efficientnet": (
        _make(
            "EfficientNetConfig",
            image_size=SIZE,
            width_coefficient=0.25,
            depth_coefficient=0.3,
            hidden_dim=320,
        ),
        "whole",
    ),
    "poolformer": (
        _make(
            "PoolFormerConfig", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=SIZE
        ),
        "whole",
    ),
    "pvt": (_make("PvtConfig", **_PYRAMID, sequence_reduction_ratios=[8, 4, 2, 1]), "whole"),
    "segformer": (_make("SegformerConfig", **_PYRAMID), "stamped"),
}

# The same with heads.
CLASSIFIERS: dict[str, tuple[Callable[[], Any], str]] = {
    name: FEATURES[name]
    for name in ("vit", "dinov2", "beit", "swin", "convnext", "resnet", "mobilenet-v2")
} | {
    "deit-teacher": (
        _make("DeiTConfig", **_VIT, architectures=["DeiTForImageClassificationWithTeacher"]),
        "stamped",
    ),
}

# Of two parts, of which one sees.
WHOLES: dict[str, Callable[[], Any]] = {
    "CLIPModel": _make("CLIPConfig", vision_config=_VIT, text_config=_TEXT, projection_dim=24),
    "SiglipModel": _make("SiglipConfig", vision_config=_VIT, text_config=_TEXT),
}
