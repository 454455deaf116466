"""How pictures of any size are cut into patches, of models that take them so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lepton_compile.errors import ExportError

from .capture.tables import AXES
from .image_text_kinds import GEMMA4, GLM, PADDLEOCR, QWEN_VL, has_pixtral
from .text_part import text_alone

__all__ = ["MOST_PATCH", "PatchGrid", "patch_grid"]

MOST_PATCH, MOST_MERGE, MOST_WINDOW = 64, 8, 32
POOLED = (("patch", MOST_PATCH), ("pooling_kernel", MOST_MERGE))
INNER_OUTER = ("hidden_size", "out_hidden_size")
"""What widths of a tower are called, inside and towards the decoder, but in Qwen2-VL."""


@dataclass(frozen=True)
class PatchGrid:
    """A picture as patches, ``merge`` x ``merge`` of which become a token.

    Attributes:
        patch: rows and columns of a patch.
        merge: patches of a token, along either side.
        frames: that a patch has, of which a picture has one, so many times.
        window: tokens along either side of what is seen together in most layers; 0 where all
            patches of a picture are seen in all.
        axes: of a token's position: 3 where it has a row and a column beside its time, else 1.
    """

    patch: int
    merge: int
    frames: int
    window: int = 0
    axes: int = 1

    @property
    def unit(self) -> int:
        """Rows and columns of a token."""
        return self.patch * self.merge

    @property
    def depth(self) -> int:
        """Numbers of a patch."""
        return 3 * self.frames * self.patch**2

    def dims(self) -> tuple[str | int, ...]:
        """Those of a picture: windows, tokens of each, patches of each, numbers of each."""
        parts: tuple[str | int, ...] = ("windows", self.window**2) if self.window else (1, "tokens")
        return (*parts, self.merge**2, self.depth)


def patch_grid(config: Any) -> PatchGrid | None:
    """That of a model; None of one for pictures of a size.

    Raises:
        ExportError: the configuration has sizes that no such model has.
    """
    if config.model_type in QWEN_VL:
        return _of_qwen_vl(config)
    if config.model_type in GEMMA4:
        return _of_gemma4(config)
    if config.model_type in PADDLEOCR:
        return _of_paddleocr(config)
    if config.model_type in GLM:
        return _of_glm(config)
    return _of_pixtral(config) if has_pixtral(config) else None


def _of_qwen_vl(config: Any) -> PatchGrid:
    sees = config.vision_config
    patch = _size(sees, "patch_size", MOST_PATCH)
    merge = _size(sees, "spatial_merge_size", MOST_MERGE)
    frames = _size(sees, "temporal_patch_size", MOST_MERGE)
    window = _size(sees, "window_size", 1 << 14) if hasattr(sees, "window_size") else 0
    if window:
        window = _side(window, patch * merge)
    _check_colours(sees, "in_channels")
    if hasattr(sees, "num_position_embeddings"):
        _size(sees, "num_position_embeddings", 1 << 24)
    _check_widths(config)
    return PatchGrid(patch, merge, frames, window, AXES)


def _of_gemma4(config: Any) -> PatchGrid:
    sees = config.vision_config
    if sees is None:
        raise ExportError(
            "this model has no vision tower",
            where="vision_config of its configuration",
            found="null",
            hint=text_alone(config),
        )
    _check_heads(sees, sees.head_dim)
    if sees.num_attention_heads % _size(sees, "num_key_value_heads", 1 << 12):
        heads = f"one that divides {sees.num_attention_heads}"
        raise _wrong("num_key_value_heads", sees.num_key_value_heads, [heads])
    _size(sees, "position_embedding_size", 1 << 24)
    patch, merge = (_size(sees, f"{name}_size", most) for name, most in POOLED)
    if merge == 1:
        raise _wrong("pooling_kernel_size", merge, ["2 and more: transformers pools no single one"])
    _check_sharing(config)
    return PatchGrid(patch, merge, 1)


def _check_sharing(config: Any) -> None:
    """See that no layer of a window has the cache of another where pictures see themselves: its
    mask has other keys than the one that is shared."""
    text = config.text_config
    shared = text.layer_types[len(text.layer_types) - (text.num_kv_shared_layers or 0) :]
    if text.use_bidirectional_attention == "vision" and "sliding_attention" in shared:
        raise ExportError(
            "tokens of a picture see each other in layers that have the cache of others",
            where="text_config.num_kv_shared_layers of its configuration",
            found=f"{text.num_kv_shared_layers}, with use_bidirectional_attention: vision",
            available=["0"],
            hint=text_alone(config),
        )


def _of_paddleocr(config: Any) -> PatchGrid:
    sees = config.vision_config
    patch = _size(sees, "patch_size", MOST_PATCH)
    _size(sees, "image_size", 1 << 14)
    _check_turned(sees, "hidden_size", "num_attention_heads")
    _check_colours(sees, "num_channels")
    _check_sections(config.text_config, config.text_config.head_dim // 2, [16, 24, 24])
    return PatchGrid(patch, _size(sees, "spatial_merge_size", MOST_MERGE), 1, axes=AXES)


def _of_glm(config: Any) -> PatchGrid:
    sees, text = config.vision_config, config.text_config
    sizes = [_size(sees, name, MOST_PATCH) for name in ("patch_size", "temporal_patch_size")]
    if config.model_type != "glm_ocr":
        _size(sees, "image_size", 1 << 14)
    _check_colours(sees, "in_channels")
    _check_outer(sees, "out_hidden_size", text)
    _check_turned(sees, "hidden_size", "num_heads")
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    part = (text.rope_parameters or {}).get("partial_rotary_factor", 1.0)
    _check_sections(text, int(width * part) // 2, [8, 12, 12])
    return PatchGrid(sizes[0], _size(sees, "spatial_merge_size", MOST_MERGE), sizes[1], axes=AXES)


def _of_pixtral(config: Any) -> PatchGrid:
    sees = config.vision_config
    _check_heads(sees, sees.hidden_size // _size(sees, "num_attention_heads", 1 << 12))
    if sees.head_dim * sees.num_attention_heads != sees.hidden_size:
        wide = [f"{sees.hidden_size} of hidden_size, by {sees.num_attention_heads} heads"]
        raise _wrong("head_dim", sees.head_dim, wide)
    _check_colours(sees, "num_channels")
    merges = hasattr(config, "spatial_merge_size")  # LLaVA's projector puts none together
    merge = _size(config, "spatial_merge_size", MOST_MERGE) if merges else 1
    return PatchGrid(_size(sees, "patch_size", MOST_PATCH), merge, 1)


def _check_heads(sees: Any, width: int) -> None:
    """See that halves of heads can be turned by rows and columns."""
    _size(sees, "num_attention_heads", 1 << 12)
    if type(width) is not int or width < 4 or width % 4:
        raise _wrong("head_dim", width, ["a multiple of 4"])


def _check_widths(config: Any) -> None:
    """See that tower and decoder fit, and that heads can be turned by rows and columns."""
    sees, text = config.vision_config, config.text_config
    inner, outer = ("embed_dim", "hidden_size") if hasattr(sees, "embed_dim") else INNER_OUTER
    _check_outer(sees, outer, text)
    _check_turned(sees, inner, "num_heads")
    if config.model_type in ("qwen2_vl", "qwen2_5_vl"):
        heads = _size(text, "num_attention_heads", 1 << 12)
        _check_sections(text, text.hidden_size // heads // 2, [16, 24, 24])


def _check_outer(sees: Any, name: str, text: Any) -> None:
    """See that what a tower makes fits among the tokens of its decoder."""
    if (given := getattr(sees, name)) != text.hidden_size:
        raise _wrong(name, given, [f"text_config.hidden_size, {text.hidden_size}"])


def _check_turned(sees: Any, name: str, heads: str) -> None:
    """See that heads of a tower can be turned by rows and columns."""
    count = _size(sees, heads, 1 << 12)
    if (width := getattr(sees, name)) % (4 * count):
        raise _wrong(name, width, [f"a multiple of 4 for each of {count} heads"])
    if (said := getattr(sees, "head_dim", None)) not in (None, width // count):
        raise _wrong("head_dim", said, [f"{width // count}, of {name}"])


def _check_colours(sees: Any, name: str) -> None:
    if (channels := getattr(sees, name, 3)) != 3:
        raise _wrong(name, channels, ["3"])


def _check_sections(text: Any, half: int, usual: list[int]) -> None:
    """See that what turns by time, row and column is all of ``half`` a head, or of what is turned
    of it; ``usual`` is what is meant where nothing is said."""
    parts = (text.rope_parameters or {}).get("mrope_section", usual)
    whole = isinstance(parts, list | tuple) and all(type(p) is int and p >= 0 for p in parts)
    if not (whole and sum(parts) == half):
        raise ExportError(
            "the parts of a head that are turned by time, row and column are not all of it",
            where="text_config.rope_parameters.mrope_section of its configuration",
            found=f"{parts!r:.60}",
            available=[f"numbers that are {half} together"],
            hint="compare the configuration with the one that the model was released with",
        )


def _side(window: int, unit: int) -> int:
    """Of a window, in tokens."""
    side = window // unit
    if not 0 < side <= MOST_WINDOW:
        most = MOST_WINDOW * unit
        raise _wrong("window_size", window, [f"{unit} to {most}, by patches and what they make"])
    return side


def _size(config: Any, name: str, most: int) -> int:
    found = getattr(config, name, None)
    if type(found) is not int or not 0 < found <= most:
        raise _wrong(name, found, [f"a number from 1 to {most}"])
    return found


def _wrong(name: str, found: object, available: list[str]) -> ExportError:
    return ExportError(
        "the vision tower cuts pictures in a way that no such model does",
        where=f"vision_config.{name} of its configuration",
        found=f"{found!r:.60}",
        available=available,
        hint="compare the configuration with the one that the model was released with",
    )
