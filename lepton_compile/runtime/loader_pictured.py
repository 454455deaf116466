"""Prompts with pictures among their tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse
from lepton_compile.runtime.loader_opened import Opened
from lepton_compile.runtime.loader_pixels import bytes_of, listed, normalized, resized
from lepton_compile.runtime.loader_seer import counts

__all__ = ["Looks", "Pictured", "WithTiles", "begun", "expanded", "pictured"]


class Pictured(list[int]):
    """Token ids, the ``pixels`` of what stands among them, tile by tile, and ``names`` of these."""

    pixels: list[np.ndarray]
    names: list[bytes]


class Looks(Opened):
    """A model that looks at pictures, and writes.

    A picture is an array of bytes (rows, columns, 3), an image of Pillow's, or the path of a file.
    Pillow is needed for files, and where pictures have to be resized.
    """

    def pixels(self, images: Sequence[Any]) -> np.ndarray:
        """What run() takes as ``encoder_pixel_values``: tiles, or the patches of one image."""
        if "encoder_positions" in self.inputs:
            from lepton_compile.runtime.loader_grids import one_alone

            return one_alone(self, images)
        return np.concatenate([self.tiles(one)[0] for one in listed(images)])

    def tiles(self, image: Any) -> tuple[np.ndarray, int, int]:
        """``pixels`` of one picture, and rows and columns of its grid: 0, 0 of a single tile."""
        how, found = self.manifest["image"], (list[np.ndarray](), 0, 0)
        refuse(not how, "the model came without preprocessor_config.json: give run() pixels")
        given = bytes_of(image)
        with failing("this image does not become what the model takes"):
            if how.get("tiles"):
                from lepton_compile.runtime.loader_tiles import tiled

                found = tiled(given, how)
            if "encoder_positions" in self.inputs:
                from lepton_compile.runtime.loader_grids import sized

                found = [sized(given, how, self.manifest["generation"]["pictures"]["grid"])], 0, 0
            parts = found[0] or [resized(given, how)]
            return np.stack([normalized(part, how) for part in parts]), found[1], found[2]


def pictured(model: Any, prompt: Any, many: bool, images: Any, chat: Any) -> list[list[int]]:
    """Prompts as token ids, each with the pixels of its images.

    Images are a list, of ``many`` prompts a list for each; or None: then chat messages have them.
    """
    refuse((t := model.task) != "image-text-to-text", f"images are of no use: this model does {t}")
    prompts = prompt if many else [prompt]
    wrong = f"give a list of images for each of {len(prompts)} prompts, not {images!r:.60}"
    with failing(wrong):
        given = [*images] if many and images is not None else [images] * len(prompts)
    refuse(len(given) != len(prompts), wrong)
    return [_with(model, *each, chat) for each in zip(prompts, given, strict=True)]


def _with(model: Any, prompt: Any, images: Any, chat: Any) -> Pictured:
    """One prompt; where a text is a chat message, images that none before it has are its own."""
    before, parts = _images_in(chat), _images_in(chat) + _images_in(prompt)
    if images is None:
        with failing("give images=[...], or each image of the messages its own, under the key"):
            keys = ("image", "url", "path")  # as templates have them
            images = [p[next((k for k in keys if p.get(k) is not None), "image")] for p in parts]
    tiles = [model.tiles(one) for one in listed(images, least=0)]
    if isinstance(prompt, str) and (chat or isinstance(chat, dict)):
        new = [{"type": "image"}] * (len(tiles) - len(before))
        prompt = [{"role": "user", "content": [*new, {"type": "text", "text": prompt}]}]
    made = Pictured(model.encode(WithTiles(prompt, tiles), chat))
    made.pixels = [one for pixels, *_ in tiles for one in pixels]
    made.names = [hashlib.sha256(f"{p.shape}".encode() + p.tobytes()).digest() for p in made.pixels]
    told = model.manifest["generation"]["pictures"]
    each, found = counts(told, made.pixels), made.count(token := told["placeholder"])
    wrong = f"the prompt has token {token} {found} times, and {len(tiles)} images take"
    refuse(found != sum(each), f"{wrong} {sum(each)}, {max(each, default=0)} for each tile at most")
    return made


class WithTiles(NamedTuple):
    """A prompt, and the tiles of each picture of it."""

    prompt: Any
    tiles: list[Any]


def begun(model: Any, text: str) -> bool:
    """Whether a chat has the token that begins a text: else processors add it, unlike tokenizers,
    whose templates have all that is wanted."""
    begins = model.special_tokens.get("bos_token")
    return bool(begins) and text.startswith(begins)


def expanded(model: Any, text: str, tiles: list[Any]) -> str:
    """A text with the placeholders of each picture where it is asked for."""
    told = model.manifest["generation"]["pictures"]
    refuse(not told["mark"], "this artifact has no tokenizer: give token ids instead of text")
    first, *rest = text.split(told["mark"])
    wrong = f"{len(tiles)} images are given, and the prompt has {told['mark']} {len(rest)} times"
    hint = "write it once for each, or leave that to chat=True (--chat)"
    refuse(len(rest) != len(tiles), f"{wrong}: {hint}")
    stands = [_placeholders(told, counts(told, parts)[0], *grid) for parts, *grid in tiles]
    if told.get("grid"):
        from lepton_compile.runtime.loader_edge import in_rows

        stands = [in_rows(told, parts[0]) for parts, *_ in tiles]
    return first + "".join(map("".join, zip(stands, rest, strict=True)))


def _placeholders(told: Mapping[str, Any], tokens: int, rows: int, columns: int) -> str:
    grid = [[(row, column) for column in range(columns)] for row in range(rows)]
    lines = ("".join(_tile(told, *each) for each in line) + told["line"] for line in grid)
    text = "".join([told["first"], *lines, told["whole"]]) if grid else told["one"]
    return str(text.replace(told["name"], told["name"] * tokens))


def _tile(told: Mapping[str, Any], row: int, column: int) -> str:
    return str(told["tile"]).replace("{row}", f"{row + 1}").replace("{column}", f"{column + 1}")


def _images_in(messages: Any) -> list[Any]:
    """The parts of messages that are images."""
    said = messages if isinstance(messages, list | tuple) else ()
    parts = (one.get("content") for one in said if isinstance(one, dict))
    every = (part for each in parts if isinstance(each, list | tuple) for part in each)
    return [part for part in every if isinstance(part, dict) and part.get("type") == "image"]
