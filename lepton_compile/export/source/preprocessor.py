"""How a model's pictures are made from photographs: ``preprocessor_config.json``, in a closed form.

transformers has a class of its own for most models, and nearly all do the same: resize, cut out the
middle, scale, normalize; those of models that write cut a picture into tiles before. What is
written is read by the class' own defaults; a class that does something else, and a setting that
asks for it, are refused: the numbers would differ.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.source import sizing
from lepton_compile.export.source.objects import HINT, read_object
from lepton_compile.export.source.processor_kinds import KINDS
from lepton_compile.export.source.tiling import Tiles, by_edge, by_ratio, processor_cuts
from lepton_compile.runtime.loader_tiles import MOST_EDGE, MOST_PIXELS, MOST_TILES

__all__ = ["FILE", "WHOLE", "Preprocessing", "preprocessing_of", "settings_of"]

FILE = "preprocessor_config.json"
WHOLE = "processor_config.json"
"""That of a model of several parts. What it has under ``image_processor`` comes first, as of
transformers: there it is saved today, and a ``preprocessor_config.json`` beside it is older."""

RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's names, at its own numbers."""

MOST = 1 << 14
"""Rows or columns of a picture, at most."""

LABELS = ("reduce_labels",)
"""What is done to labels of segmentation alone."""


WARPED = 384
"""From this edge on ConvNext's class makes a square of the whole picture."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture of bytes, in this order.

    Attributes:
        resize: rows and columns; or the shorter edge, which the other follows; or nothing.
        resample: Pillow's name of how.
        size: rows and columns of what is given to the model: the middle, where that is not all; or
            nothing, where pictures are of any.
        crop: whether it may be larger before: its middle is taken.
        scale: what each byte is multiplied by.
        mean: of each channel, which is taken off then.
        std: by which the rest is divided.
        tiles: of ``size`` that a picture is cut into first, each of which all this is done to.
        pixels: of a picture that keeps about its form.
    """

    resize: tuple[int, ...]
    resample: str
    size: tuple[int, ...]
    crop: bool
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tiles: Tiles | None = None
    pixels: sizing.AnySize | None = None

    def entry(self) -> dict[str, Any]:
        """As the manifest has it; tiles, or how many pixels, where that is asked."""
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        del lists["tiles"], lists["pixels"]
        some: dict[str, Any] = {"tiles": self.tiles.entry()} if self.tiles else {}
        some |= self.pixels.entry() if self.pixels else {}
        return {**lists, "file": FILE, **some}


def preprocessing_of(folder: Path, own: tuple[int, int] | None) -> Preprocessing | None:
    """What the files of a model say; None where there are none.

    Args:
        own: rows and columns that the model was made for, where its configuration says.

    Raises:
        SourceError: a file is damaged, or asks for what is not done here.
    """
    file, settings = settings_of(folder)
    return _Read(file, settings).all(own) if settings else None


def settings_of(folder: Path) -> tuple[Path, dict[str, Any]]:
    """What is written of pictures, and the file it is in; nothing where it is nowhere.

    Raises:
        SourceError: a file is damaged.
    """
    if found := read_object(folder / WHOLE).get("image_processor"):
        return folder / WHOLE, found if isinstance(found, dict) else {"size": found}
    return folder / FILE, read_object(folder / FILE)


class _Read:
    """Reads the settings of one file."""

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        self._file, self._settings = file, settings
        name = settings.get("image_processor_type") or settings.get("feature_extractor_type")
        kind = re.sub("(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", str(name))
        if kind not in KINDS:
            raise self._wrong(
                "no image processor is known by this name",
                f"image_processor_type: {name!r:.60}",
                [f"{each}ImageProcessor" for each in KINDS],
                "compile another model, or describe the preprocessing as one of these",
            )
        self._kind = KINDS[kind]
        for key, value in settings.items():
            known = key.removeprefix("do_") in (*self._kind.steps, *LABELS)
            if value and (key == "rescale_offset" or (key.startswith("do_") and not known)):
                raise self._wrong(
                    "the image processor has a step that is not supported",
                    f"{key}: {value!r:.60}",
                    [f"do_{each}" for each in self._kind.steps],
                    "compile another model",
                )

    def all(self, own: tuple[int, int] | None) -> Preprocessing:
        """All of it, in its closed form."""
        if self._kind.edge:
            return self._of_tiles(*self._by_edge())
        if any(self._kind.pixels):
            return self._of_any_size()
        if self._kind.patches and (tiles := self._by_ratio()):
            return self._of_tiles(self._whole(self._size("size", self._kind.size), (), None), tiles)
        resize = self._size("size", self._kind.size) if self._does("resize", True) else ()
        crop = self._size("crop_size", (self._kind.crop or 224,) * 2)
        wanted = crop if self._does("center_crop", bool(self._kind.crop)) else ()
        if len(resize) == 1 and self._kind.part and not wanted:
            resize, wanted = self._cut(resize[0])
        size = self._whole(resize, wanted, own)
        mean, std = self._numbers()
        return Preprocessing(resize, self._resample(), size, bool(wanted), self._scale(), mean, std)

    def _by_edge(self) -> tuple[tuple[int, int], Tiles]:
        """Rows and columns of a tile, and the grid, which the longest edge decides."""
        if not self._does("resize", True):
            raise self._wrong(
                "images of any size are cut into tiles, of which there would be no end",
                "do_resize: false",
                ["do_resize: true"],
                "resize them first: set do_resize to true",
            )
        side = self._edge("max_image_size", self._kind.size[0])
        edge = self._edge("size", self._kind.edge)
        return (side, side), by_edge(edge, side, self._does("image_splitting", True))

    def _of_any_size(self) -> Preprocessing:
        """All of it, for pictures that keep about their form."""
        if not self._does("resize", True):
            raise self._wrong(
                "images are cut into whole tokens, and not made of their size",
                "do_resize: false",
                ["do_resize: true"],
                "set do_resize to true",
            )
        pixels = sizing.any_size(self._settings, self._kind.fit, self._kind.pixels)
        if pixels is None:
            told = {key: self._settings.get(key) for key in sizing.SIZES[self._kind.fit]}
            what = "nothing that is read says how many pixels an image is given"
            raise self._wrong(what, f"{told!r:.120}", [sizing.FORMS[self._kind.fit]])
        mean, std = self._numbers()
        how = (self._resample(), (), False, self._scale(), mean, std)
        return Preprocessing((), *how, pixels=pixels)

    def _edge(self, key: str, usual: int) -> int:
        """Rows or columns of the longer side."""
        found = self._settings.get(key)
        if found is None:
            return usual
        named = found if isinstance(found, dict) else {}
        given = {name: value for name, value in named.items() if value is not None}
        edge = given.get("longest_edge")
        if [*given] == ["longest_edge"] and type(edge) is int and 0 < edge <= MOST_EDGE:
            return edge
        raise self._wrong(
            f"{key} is in no form that is read for images in tiles",
            f"{key}: {found!r:.80}",
            [f"longest_edge, a number from 1 to {MOST_EDGE}"],
        )

    def _by_ratio(self) -> Tiles | None:
        """The grid that has about a picture's form; None where it is not cut."""
        asked = processor_cuts(self._file.parent)
        least, most = self._count("min_patches", 1), self._count("max_patches", self._kind.patches)
        if not (self._flag("crop_to_patches", False) if asked is None else asked) or most == 1:
            return None
        if least > most:
            raise self._wrong(
                "there are no grids between the fewest and the most tiles",
                f"min_patches: {least}, max_patches: {most}",
            )
        return by_ratio(least, most)

    def _of_tiles(self, size: tuple[int, int], tiles: Tiles) -> Preprocessing:
        """All of it, for pictures in tiles."""
        if not tiles.fit(size):
            raise self._wrong(
                "an image would become more tiles than a server should hold in memory",
                f"{tiles.most} tiles of {size[0]} x {size[1]}",
                [f"{MOST_TILES} tiles, and {MOST_PIXELS} pixels of all together, at most"],
                "let images be smaller, or fewer",
            )
        mean, std = self._numbers()
        return Preprocessing(size, self._resample(), size, False, self._scale(), mean, std, tiles)

    def _whole(
        self, resize: tuple[int, ...], crop: tuple[int, ...], own: tuple[int, int] | None
    ) -> tuple[int, int]:
        """Rows and columns of what comes out."""
        if len(crop) == 1:
            crop *= 2
        short = [kept for kept, left in zip(crop, resize * 2, strict=False) if kept > left]
        if resize and short:
            raise self._wrong(
                "the center crop is larger than the resized image",
                f"crop_size: {list(crop)}, size: {list(resize)}",
            )
        found = crop or (resize if len(resize) == 2 else None) or (own if not resize else None)
        if found is None:
            raise self._wrong(
                "images keep their aspect ratio, and the engine takes one size",
                f"size: {self._settings.get('size')!r:.60}, do_center_crop: false",
                ["a size with height and width", "do_center_crop: true"],
            )
        return found[0], found[1]

    def _cut(self, edge: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Size and middle by a part of the edge."""
        if edge >= WARPED:
            return (edge, edge), ()
        part = self._number("crop_pct", self._kind.part)
        if not 0 < part <= 1:
            raise self._wrong(
                "a part of the edge is more than nothing, up to 1", f"crop_pct: {part}"
            )
        return (int(edge / part),), (edge, edge)

    def _size(self, key: str, usual: tuple[int, ...]) -> tuple[int, ...]:
        """Rows and columns, or one edge, as a number or by names."""
        found = self._settings.get(key)
        if found is None:
            return usual
        forms: Any = (
            {"height": found, "width": found} if len(usual) == 2 else {"shortest_edge": found}
        )
        named = found if isinstance(found, dict) else forms
        given = {name: value for name, value in named.items() if value is not None}
        for names in (("height", "width"), ("shortest_edge",)):
            sizes = tuple(given.get(name) for name in names)
            if given.keys() == {*names} and all(type(n) is int and 0 < n <= MOST for n in sizes):
                return sizes  # type: ignore[return-value]
        raise self._wrong(
            f"{key} is in no form that is read",
            f"{key}: {found!r:.80}",
            ["height and width", "shortest_edge", f"numbers from 1 to {MOST}"],
        )

    def _resample(self) -> str:
        found = self._settings.get("resample", self._kind.resample)
        if type(found) is not int or not 0 <= found < len(RESAMPLE):
            known = [f"{number} ({name})" for number, name in enumerate(RESAMPLE)]
            raise self._wrong(
                "no way of resizing has this number", f"resample: {found!r:.60}", known
            )
        return RESAMPLE[found]

    def _scale(self) -> float:
        if not self._does("rescale", True):
            return 1.0
        return self._number("rescale_factor", 1 / 255)

    def _numbers(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation."""
        if not self._does("normalize", self._kind.fit != sizing.FILL):
            return (0.0,) * 3, (1.0,) * 3
        keys = zip(("image_mean", "image_std"), self._kind.mean, strict=True)
        mean, std = (self._channels(key, usual) for key, usual in keys)
        if 0 in std:
            raise self._wrong("nothing can be divided by 0", f"image_std: {list(std)}")
        return mean, std

    def _channels(self, key: str, usual: tuple[float, ...]) -> tuple[float, ...]:
        found = self._settings.get(key)
        found = usual if found is None else found
        each = [found] * 3 if isinstance(found, int | float) else found
        if not isinstance(each, list | tuple) or len(each) != 3 or not all(map(_plain, each)):
            raise self._wrong(f"{key} has one number for each of 3 colours", f"{found!r:.60}")
        return tuple(map(float, each))

    def _does(self, what: str, usual: bool) -> bool:
        return self._flag(f"do_{what}", usual)

    def _flag(self, key: str, usual: bool) -> bool:
        found = self._settings.get(key)
        if found is not None and not isinstance(found, bool):
            raise self._wrong(f"{key} is true or false", f"{found!r:.60}")
        return usual if found is None else found

    def _count(self, key: str, usual: int) -> int:
        found = self._settings.get(key)
        if found is not None and (type(found) is not int or found < 1):
            raise self._wrong(f"{key} is a number from 1 on", f"{found!r:.60}")
        return usual if found is None else found

    def _number(self, key: str, usual: float) -> float:
        found = self._settings.get(key)
        if found is not None and not _plain(found):
            raise self._wrong(f"{key} is a number", f"{found!r:.60}")
        return usual if found is None else float(found)

    def _wrong(
        self, what: str, found: str, available: list[str] | None = None, hint: str = HINT
    ) -> SourceError:
        return SourceError(
            f"Pictures cannot be made as {self._file.name} says: {what}.",
            where=str(self._file),
            found=found,
            available=available or [],
            hint=hint,
        )


def _plain(value: Any) -> bool:
    """A number that JSON writes as one, and that is one."""
    return type(value) in (int, float) and abs(value) < float("inf")
