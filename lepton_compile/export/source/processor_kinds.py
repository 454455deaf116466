"""Image processors of transformers, and what they do where their files say nothing."""

from __future__ import annotations

from dataclasses import dataclass

from lepton_compile.export.source import sizing

__all__ = ["KINDS", "Kind"]

HALVES = ((0.5,) * 3, (0.5,) * 3)
NOTHING = ((0.0,) * 3, (1.0,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

DONE = ("resize", "center_crop", "rescale", "normalize", "convert_rgb")
UNCUT = ("resize", "rescale", "normalize", "convert_rgb")
TILED = (*UNCUT, "image_splitting", "pad")
"""Of tiles there is nothing to pad: all are of one size."""


@dataclass(frozen=True)
class Kind:
    """What a class of transformers does where its file says nothing.

    Attributes:
        resample: Pillow's number of how.
        size: rows and columns, or the shorter edge alone.
        crop: rows and columns of the middle; none where all is kept.
        mean: and deviation of each channel.
        part: of the shorter edge that is kept, where the class cuts the middle out by itself.
        edge: the longer one that a picture is resized to, where it is cut into tiles then, which
            have ``size``.
        patches: that a picture of about their form is cut into, at most.
        pixels: the fewest and the most, of a picture that keeps about its form; or what else
            ``fit`` goes by (``any_size``).
        fit: the rule by which its size is found.
        steps: that its file may ask for.
    """

    resample: int
    size: tuple[int, ...]
    crop: int = 0
    mean: tuple[tuple[float, ...], tuple[float, ...]] = HALVES
    part: float = 0.0
    edge: int = 0
    patches: int = 0
    pixels: tuple[int, int] = (0, 0)
    fit: str = sizing.BETWEEN
    steps: tuple[str, ...] = DONE


KINDS = {
    "Beit": Kind(3, (224, 224)),
    "Bit": Kind(3, (224,), 224, CLIP),
    "CLIP": Kind(3, (224,), 224, CLIP),
    "ConvNext": Kind(3, (384,), part=224 / 256),
    "DINOv3ViT": Kind(2, (224, 224), mean=IMAGENET),
    "DeiT": Kind(3, (256, 256), 224),
    **dict.fromkeys(
        ("Glm4v", "Glm46V"),
        Kind(3, (), mean=CLIP, pixels=(112**2, 28**2 * 15000), fit=sizing.SCALE, steps=UNCUT),
    ),
    "GotOcr2": Kind(3, (384, 384), mean=CLIP, patches=12, steps=UNCUT),
    "Idefics3": Kind(1, (364, 364), edge=4 * 364, steps=TILED),
    "Gemma3": Kind(2, (224, 224)),
    "Gemma4": Kind(3, (), mean=NOTHING, pixels=(16, 280), fit=sizing.FILL, steps=UNCUT),
    "MobileNetV1": Kind(2, (256,), 224),
    "MobileNetV2": Kind(2, (256,), 224),
    "PaddleOCRVL": Kind(3, (), mean=CLIP, pixels=(384**2, 1536**2), fit=sizing.GROW, steps=UNCUT),
    "Pixtral": Kind(3, (), mean=CLIP, pixels=(1024, 1024), fit=sizing.EDGE, steps=(*UNCUT, "pad")),
    "Pvt": Kind(3, (224, 224), mean=IMAGENET),
    "Siglip": Kind(3, (224, 224)),
    "Qwen2VL": Kind(3, (), mean=CLIP, pixels=(56**2, 28**2 * 1280), steps=UNCUT),
    "SmolVLM": Kind(1, (364, 364), edge=4 * 364, steps=TILED),
    "ViT": Kind(2, (224, 224)),
}
"""By the names of their classes, without the endings that all have."""
