"""Models that see pictures and write: a vision tower, and a decoder among whose tokens they stand.

Both are traced as one graph, whose decoder is called as that of any text generation. What the tower
makes of a picture takes the place of the embeddings of as many placeholder tokens. The pictures
stand in an input of their own, by which the tower's part is told from the rest where an engine is
written (``engines/encoder_part.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lepton_compile.errors import ExportError

from .capture import LeptonCache
from .capture.attention import active
from .image_text_kinds import (
    GEMMA3,
    GEMMA4,
    IDEFICS3,
    IMAGE_TEXT_KINDS,
    INTERNVL,
    LIGHTON,
    LLAVA,
    MISTRAL3,
    PIXTRAL,
    has_pixtral,
)
from .patch_grid import patch_grid
from .tasks import CacheUse, TaskModule, cache_name, keeping
from .text_part import text_alone

__all__ = [
    "IMAGE_TEXT",
    "PICTURES",
    "ImageTextModule",
    "check_image_text",
    "known_ids",
    "look_up_known",
    "marking",
    "picture_tokens",
    "placeholder",
    "sees_itself",
]

IMAGE_TEXT = "image-text-to-text"
PICTURES = "encoder_pixel_values"
STRATEGY = "vision_feature_select_strategy"


class ImageTextModule(TaskModule):
    """Logits of what is written, by the pictures and by the tokens before them.

    Args:
        shape: channels, rows and columns of a picture, or of each tile of one.
    """

    def __init__(self, network: nn.Module, cache: CacheUse, shape: tuple[int, int, int]) -> None:
        super().__init__(network)
        self.cache = cache
        self.input_names = [PICTURES, "input_ids", "attention_mask", "logits_to_keep"]
        text = (("batch", "sequence"), ("batch", "total_sequence"), ())
        self.input_dims = [("images", *shape), *text]
        self.input_dtypes = {PICTURES: torch.float32}
        self.output_names = ["logits"]

    def forward(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        if self.cache == "none":
            raise ExportError("a vision-language model is compiled with a KV cache alone")
        pixels, ids, mask, keep = inputs
        network: Any = self.network
        rows = _features(network, pixels).flatten(0, 1)
        places = placeholder(network.config)
        embeddings = network.get_input_embeddings()(known_ids(network, ids, places))
        given = {
            cache_name(network): LeptonCache(mask.shape[1], ids.shape[1], own=self.cache == "own")
        }
        with keeping(network, keep), marking(network, mask, ids):
            found = network(
                inputs_embeds=torch.ops.lepton.placed(embeddings, ids, rows, places),
                attention_mask=mask,
                position_ids=torch.ops.lepton.positions(mask, ids),
                use_cache=True,
                **given,
            )
        return [found["logits"].to(torch.float32)]


def sees_itself(config: Any) -> bool:
    """Whether the tokens of a picture see each other, also later ones."""
    if config.model_type in GEMMA4:
        return bool(config.text_config.use_bidirectional_attention == "vision")
    return config.model_type in GEMMA3


@contextmanager
def marking(network: Any, mask: Tensor, ids: Tensor) -> Iterator[None]:
    """Have the tokens of each picture see each other, in models that are made so; in some of them
    where layers see a window alone."""
    capture = active()
    if not sees_itself(network.config) or capture is None:
        yield
        return
    capture.marked = torch.ops.lepton.marked_mask(mask, ids, placeholder(network.config))
    capture.marked_near = network.config.model_type in GEMMA4
    try:
        yield
    finally:
        capture.marked = None


def check_image_text(config: Any) -> None:
    """Refuse what is not compiled as a whole.

    Raises:
        ExportError: the model puts pictures among its tokens in another way, or its configuration
            does not say how, or cuts them as no model does.
    """
    if config.model_type not in IMAGE_TEXT_KINDS:
        raise ExportError(
            "this kind of vision-language model is not supported",
            where="model_type of its configuration",
            found=str(config.model_type),
            available=sorted(IMAGE_TEXT_KINDS),
            hint=text_alone(config),
        )
    placeholder(config)
    patch_grid(config)
    if config.model_type in (*MISTRAL3, *LIGHTON) and not has_pixtral(config):
        raise ExportError(
            "this model's vision tower is another one than that which such models have",
            where="vision_config.model_type of its configuration",
            found=str(getattr(config.vision_config, "model_type", None)),
            available=[PIXTRAL],
            hint=text_alone(config),
        )
    if has_pixtral(config) and getattr(config, STRATEGY, "full") != "full":
        raise ExportError(
            "a tower for pictures of any form has no class token that could be left out",
            where=f"{STRATEGY} of its configuration",
            found=str(getattr(config, STRATEGY)),
            available=["full"],
            hint="compare the configuration with the one that the model was released with",
        )
    if config.model_type in (*LLAVA, *INTERNVL, *MISTRAL3):
        _layers_chosen(config)


def picture_tokens(network: Any, shape: tuple[int, int, int]) -> int:
    """How many tokens stand for a picture of ``shape`` (channels, rows, columns).

    Raises:
        ExportError: the model's own code fails on such a picture, or makes nothing of it.
    """
    try:
        with torch.no_grad():
            count = int(_features(network, torch.zeros((1, *shape), device="meta")).shape[1])
    except ExportError:
        raise
    except Exception as error:  # whatever the model's own code raises
        raise _cannot_see(network, shape, str(error)) from error
    if not count:
        raise _cannot_see(network, shape, "it makes no tokens of them")
    return count


def _cannot_see(network: Any, shape: tuple[int, int, int], why: str) -> ExportError:
    size = getattr(network.config.vision_config, "image_size", None)
    return ExportError(
        "the model cannot take pictures of the size that its image processor makes",
        where=f"{type(network).__name__}, in transformers' own code",
        found=f"{shape[0]} x {shape[1]} x {shape[2]}: {why:.200}",
        available=[f"image_size: {size}"] if size else (),
        hint="compare the files of the image processor, and image_size, patch_size, scale_factor, "
        "downsample_ratio and mm_tokens_per_image of config.json, with those that it was "
        "released with",
    )


def placeholder(config: Any) -> int:
    """The token in whose place the features of pictures stand.

    Raises:
        ExportError: the configuration names none.
    """
    token = getattr(config, "image_token_id", None)
    if type(token) is not int or token < 0:
        raise ExportError(
            "the configuration names no token that stands for images",
            where="image_token_id",
            found=f"{token!r:.60}",
            hint="compare the configuration with the one that the model was released with",
        )
    return token


def look_up_known(network: Any) -> None:
    """Have transformers' model look up what its table of embeddings has: in the place of others,
    placeholders behind its end, stand pictures, and it fails before they do."""
    places = placeholder(network.config)
    network.get_input_embeddings().register_forward_pre_hook(
        lambda _, given: (known_ids(network, given[0], places), *given[1:])
    )


def known_ids(network: Any, ids: Tensor, places: int) -> Tensor:
    """Ids of words: in place of others, which may stand behind the end of the table of embeddings,
    that of padding where the model says so, or 0."""
    config = network.config
    if config.model_type in GEMMA4:
        others = (places, config.video_token_id, config.audio_token_id)
        for token in (each for each in others if each is not None):
            ids = torch.where(ids == token, config.text_config.pad_token_id, ids)
        return ids
    if places < network.get_input_embeddings().weight.shape[0]:
        return ids
    return torch.where(ids == places, 0, ids)


def _features(network: Any, pixels: Tensor) -> Tensor:
    """What stands for pictures, or tiles of them, among tokens: (pictures, tokens, width)."""
    model, config = network.model, network.config
    if config.model_type in IDEFICS3:
        return _of_tiles(model, pixels)
    if config.model_type in GEMMA3:
        found = model.get_image_features(pixel_values=pixels)
        return found if isinstance(found, Tensor) else found.pooler_output
    framed = config.model_type in INTERNVL
    if framed and config.vision_feature_layer == -1:
        seen = model.vision_tower(pixel_values=pixels).last_hidden_state  # normed, unlike others
    else:
        seen = torch.cat(_behind(model.vision_tower, pixels, _layers_chosen(config)), dim=-1)
    if config.vision_feature_select_strategy == "default":
        seen = seen[:, 1:]  # without the class token
    features: Tensor = model.multi_modal_projector(_in_squares(network, seen) if framed else seen)
    return features


def _in_squares(network: Any, seen: Tensor) -> Tensor:
    """Parts of pictures (pictures, parts, width), of which several are put together as one.

    Raises:
        ExportError: the parts of a picture make no square.
    """
    side = math.isqrt(int(seen.shape[1]))
    if side * side != seen.shape[1]:
        raise ExportError(
            "parts of pictures are put together in squares, and are no square themselves",
            found=f"{seen.shape[1]} parts",
            hint="compare image_size, patch_size and vision_feature_select_strategy with those "
            "that the model was released with",
        )
    plane = seen.reshape(-1, side, side, seen.shape[2])
    ratio = network.config.downsample_ratio
    together: Tensor = network.model.pixel_shuffle(plane, scale_factor=ratio).flatten(1, 2)
    return together


def _of_tiles(model: Any, pixels: Tensor) -> Tensor:
    """``_features`` of a tower for pictures of any form: as tiles none is padded."""
    tower = model.vision_model
    rows, columns = (int(size) // tower.patch_size for size in pixels.shape[2:])
    whole = torch.ones((pixels.shape[0], rows, columns), dtype=torch.bool, device=pixels.device)
    hidden = tower.embeddings(pixel_values=pixels, patch_attention_mask=whole)
    hidden = tower.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
    features: Tensor = model.connector(tower.post_layernorm(hidden))
    return features


def _layers_chosen(config: Any) -> list[int]:
    """Behind which of a tower's layers features are taken: 0 is in front of the first.

    Raises:
        ExportError: there are no such layers, or transformers takes none of them: a 0 that stands
            alone, and several where they are not projected together.
    """
    wanted = config.vision_feature_layer
    count = getattr(config.vision_config, "num_hidden_layers", None) or 0
    listed = [*wanted] if isinstance(wanted, list | tuple) else [wanted]
    found = [number if number >= 0 else count + 1 + number for number in listed]
    taken = config.model_type in LLAVA if isinstance(wanted, list | tuple) else wanted != 0
    if not taken or not found or not all(0 <= number <= count for number in found):
        raise ExportError(
            "features of pictures are taken behind layers that the tower does not have",
            where="vision_feature_layer of its configuration",
            found=str(wanted),
            available=[f"one of 1 to {count}, and of -{count} to -1"],
            hint="compare the configuration with the one that the model was released with",
        )
    return found


def _behind(tower: nn.Module, pixels: Tensor, layers: list[int]) -> list[Tensor]:
    """What goes into a tower's first layer (0) and comes out of each (from 1 on), as asked."""
    count = int(tower.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]
    stack = next(m for m in tower.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
    found: list[Tensor] = []

    def note(_module: nn.Module, given: Any, out: Any) -> None:
        found.extend([] if found else given[:1])
        found.append(out[0] if isinstance(out, tuple) else out)

    hooks = [layer.register_forward_hook(note) for layer in stack]
    try:
        tower(pixel_values=pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return [found[number] for number in layers]
