"""The part of a model that sees, and transformers' class for it.

CLIP and SigLIP are published as one model of two parts, one for texts and one for pictures, each of
which has a class of its own that reads the whole's weights.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from lepton_compile.errors import ExportError, SourceError

from .image_text_kinds import LIGHTON
from .patch_grid import patch_grid
from .source.objects import read_object
from .source.preprocessor import FILE, WHOLE, Preprocessing, preprocessing_of, settings_of
from .source.sizing import BETWEEN, EDGE, FILL, GROW, SCALE
from .text_tower import tower_alone

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

    from .source import Source

__all__ = [
    "IMAGE_TASKS",
    "image_class",
    "image_shape",
    "lacks_pooler",
    "parts_of",
    "preprocessing",
    "reads_images",
    "vision_part",
]

IMAGE_TASKS = ("image-classification", "image-feature-extraction")
OF_LIGHTON = (("patch_size", 14), ("spatial_merge_size", 2))
USUAL_PATCHES = {
    BETWEEN: (("patch_size", 14), ("merge_size", 2), ("temporal_patch_size", 2)),
    FILL: (("patch_size", 16), ("pooling_kernel_size", 3)),
    EDGE: (("patch_size", 16), ("spatial_merge_size", 1)),
    SCALE: (("patch_size", 14), ("merge_size", 2), ("temporal_patch_size", 2)),
    GROW: (("patch_size", 14), ("merge_size", 2), ("temporal_patch_size", 1)),
}
"""What is said of the patches of pictures of any size, or meant where it is not, by the rule of
sizes."""
USUAL = 32
"""Rows and columns of a picture of which a network of convolutions makes one, in the end."""
WITH_PROJECTION = "VisionModelWithProjection"


def reads_images(architecture: str) -> bool:
    """Whether a class of transformers takes pictures and nothing else."""
    import transformers

    made = getattr(transformers, architecture, None)
    return getattr(made, "main_input_name", None) == "pixel_values"


def vision_part(config: PretrainedConfig, task: str) -> PretrainedConfig | None:
    """The configuration of what sees, where ``config`` is that of several parts.

    None where it is such a model itself, where the task is another one than to make vectors of
    pictures, and where transformers has no class for the part alone.
    """
    from transformers import AutoModel

    part: Any = getattr(config, "vision_config", None)
    if task != "image-feature-extraction" or type(part) not in AutoModel._model_mapping:
        return None
    return tower_alone(config, part)


def image_class(config: PretrainedConfig) -> Any:
    """transformers' class for vectors of pictures: the one that the model was saved as, if it is
    for them; of a whole its vision tower, with its projection where it has one.

    The general class where transformers has none for the configuration.
    """
    import transformers

    for name in (getattr(config, "architectures", None) or [])[:1]:
        for each in (name, name.removesuffix("Model") + WITH_PROJECTION):
            if each.endswith(("Model", WITH_PROJECTION)) and reads_images(each):
                return getattr(transformers, each)
    part = vision_part(config, "image-feature-extraction") or config
    return transformers.AutoModel._model_mapping.get(type(part), transformers.AutoModel)


def lacks_pooler(source: Source, network: nn.Module) -> bool:
    """Whether a model has weights for pooling that its checkpoint does not: they would be random.

    Only of classes that can be made without.
    """
    if "add_pooling_layer" not in inspect.signature(type(network).__init__).parameters:
        return False
    if not any("pooler." in name for name in network.state_dict()):
        return False
    try:
        names = source.checkpoint().names()
    except SourceError:  # a plan may be made before there are weights
        return False
    return not any("pooler." in name for name in names)


def preprocessing(source: Source) -> Preprocessing | None:
    """How pictures are made for the model; None where its files do not say, or it takes others than
    of three colours.

    Raises:
        SourceError: a file is damaged, or asks for what is not done here.
    """
    if source.kind != "folder" or _channels(source) != 3:
        return None
    made = preprocessing_of(source.folder, _own_size(source))
    if made is not None:
        _check_patches(source, made)
    return made


def _check_patches(source: Source, made: Preprocessing) -> None:
    """See that patches are cut as the vision tower takes them, if it takes any.

    Raises:
        SourceError: they are not.
    """
    grid = patch_grid(source.config())
    fit = made.pixels.fit if made.pixels is not None else None
    usual = USUAL_PATCHES[fit or BETWEEN]
    if fit == EDGE and source.config().model_type in LIGHTON:
        usual = OF_LIGHTON
    names = [key for key, _ in usual]
    own = (grid.patch, grid.merge, grid.frames)[: len(names)] if grid is not None else None
    file, settings = settings_of(source.folder)
    if fit == EDGE:  # its processor says what a token is, whatever its image processor does
        file, settings = source.folder / WHOLE, read_object(source.folder / WHOLE)
    told = tuple(settings.get(*each) for each in usual) if fit is not None else None
    if own != told:
        raise SourceError(
            "The image processor does not make what the vision tower takes.",
            where=str(file),
            found=_told(names, told),
            available=[_told(names, own)],
            hint=f"put the model's own {file.name} beside it",
        )


def _told(names: list[str], sizes: tuple[Any, ...] | None) -> str:
    if sizes is None:
        return "pictures of one size"
    return ", ".join(f"{name}: {size!r:.20}" for name, size in zip(names, sizes, strict=True))


def image_shape(source: Source, *, tiles: bool = False) -> tuple[int, int, int]:
    """Channels, rows and columns of what a model is given: of each picture, or of each of its
    ``tiles`` where the model takes them so.

    Raises:
        ExportError: it takes tiles that are not asked for, or nothing says how large they are.
        SourceError: as of ``preprocessing``.
    """
    found = preprocessing(source)
    if found is not None and found.pixels:
        raise ExportError(
            "the model takes images of any size, in patches",
            where=str(source.path),
            found=f"{found.pixels.least} to {found.pixels.most} pixels",
            available=["models whose images have one size"],
            hint="compile the whole model, which writes, or another one for images alone",
        )
    if found is not None and found.tiles and not tiles:
        raise ExportError(
            "the model takes images in tiles, not as one each",
            where=str(source.path),
            found=f"tiles: {found.tiles.entry()}",
            available=["models whose image processor resizes and crops alone"],
            hint="compile the whole model, which writes, or another one for images alone",
        )
    size = found.size if found is not None else _own_size(source)
    if size is None:
        raise ExportError(
            "nothing says how large the images are that the model takes",
            where=str(source.path),
            found=f"no {FILE}, and no image_size in config.json",
            hint=f"put the model's own {FILE} beside it",
        )
    return _channels(source), size[0], size[1]


def parts_of(source: Source, shape: tuple[int, int, int]) -> int:
    """About how many parts of a picture go through a model's layers, side by side."""
    size = getattr(_seeing(source), "patch_size", None)
    each = size if type(size) is int and size > 0 else USUAL
    return max(1, shape[1] // each * (shape[2] // each))


def _own_size(source: Source) -> tuple[int, int] | None:
    """Rows and columns that the model was made for, where its configuration says."""
    size = getattr(_seeing(source), "image_size", None)
    each: list[Any] = list(size) if isinstance(size, list | tuple) else [size, size]
    whole = len(each) == 2 and all(type(n) is int and n > 0 for n in each)
    return (each[0], each[1]) if whole else None


def _channels(source: Source) -> int:
    return int(getattr(_seeing(source), "num_channels", None) or 3)


def _seeing(source: Source) -> Any:
    config = source.config()
    return getattr(config, "vision_config", None) or config
