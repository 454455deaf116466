"""Prompts with pictures among their tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse
from lepton_compile.runtime.loader_opened import Opened
from lepton_compile.runtime.loader_pixels import bytes_of, listed, normalized, resized

__all__ = ["Looks", "Pictured", "Talk", "apart", "pictured", "spread"]


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
        """``encoder_pixel_values`` (tiles, 3, rows, columns) float32 of pictures."""
        return np.concatenate([self.tiles(one)[0] for one in listed(images)])

    def tiles(self, image: Any) -> tuple[np.ndarray, int, int]:
        """The same of one picture, and rows and columns of its tiles: 0 where it is one alone."""
        how, found = self.manifest["image"], (list[np.ndarray](), 0, 0)
        refuse(not how, "the model came without preprocessor_config.json: give run() pixels")
        given = bytes_of(image)
        with failing("this image does not become what the model takes"):
            if how.get("tiles"):
                from lepton_compile.runtime.loader_tiles import tiled

                found = tiled(given, how)
            parts = found[0] or [resized(given, how)]
            return np.stack([normalized(part, how) for part in parts]), found[1], found[2]


def pictured(model: Any, prompt: Any, many: bool, images: Any, chat: Any) -> list[list[int]]:
    """Prompts as token ids, each with the images that stand in its places.

    Images are a list, of ``many`` prompts a list for each; or None: then chat messages bring them,
    as ``image``.
    """
    does = model.task
    refuse(does != "image-text-to-text", f"images are of no use: this model does {does}")
    prompts = prompt if many else [prompt]
    wrong = f"give a list of images for each of {len(prompts)} prompts, not {images!r:.60}"
    with failing(wrong):
        given = [*images] if many and images is not None else [images] * len(prompts)
    refuse(len(given) != len(prompts), wrong)
    return [_with(model, *each, chat) for each in zip(prompts, given, strict=True)]


def _with(model: Any, prompt: Any, images: Any, chat: Any) -> Pictured:
    before = _places(chat)
    own = images if images is not None else [p.get("image") for p in before + _places(prompt)]
    tiles = [model.tiles(one) for one in listed(own, least=0)]
    if isinstance(prompt, str) and (chat or isinstance(chat, dict)):
        new = [{"type": "image"}] * (len(tiles) - len(before))
        prompt = [{"role": "user", "content": [*new, {"type": "text", "text": prompt}]}]
    made = Pictured(model.encode(Talk(prompt, tiles), chat))
    made.pixels = [one for pixels, *_ in tiles for one in pixels]
    made.names = [hashlib.sha256(one.tobytes()).digest() for one in made.pixels]
    told = model.manifest["generation"]["pictures"]
    places, wanted = made.count(told["token"]), told["rows"] * len(made.names)
    wrong = f"the prompt has {places} places for {len(tiles)} images, which stand in {wanted}"
    refuse(places != wanted, wrong)
    return made


class Talk(NamedTuple):
    """A prompt, and of each picture of it the tiles."""

    prompt: Any
    tiles: list[Any]


def apart(prompt: Any) -> Talk:
    """Both, of a prompt that may have no tiles."""
    return prompt if isinstance(prompt, Talk) else Talk(prompt, [])


def spread(model: Any, text: str, tiles: list[Any]) -> str:
    """A text with the tokens of each picture where it is asked for."""
    told = model.manifest["generation"]["pictures"]
    refuse(not told["mark"], "this artifact has no tokenizer: give token ids instead of text")
    first, *rest = text.split(told["mark"])
    wrong = f"the prompt has {len(rest)} places for {len(tiles)} images"
    hint = f"write {told['mark']} where each stands, or give chat=True"
    refuse(len(rest) != len(tiles), f"{wrong}: {hint}")
    stands = [_stands(told, *grid) for _, *grid in tiles]
    return first + "".join(map("".join, zip(stands, rest, strict=True)))


def _stands(told: Mapping[str, Any], rows: int, columns: int) -> str:
    grid = [[(row, column) for column in range(columns)] for row in range(rows)]
    lines = ("".join(_tile(told, *each) for each in line) + told["line"] for line in grid)
    text = "".join([told["first"], *lines, told["whole"]]) if grid else told["one"]
    return str(text.replace(told["name"], told["name"] * told["rows"]))


def _tile(told: Mapping[str, Any], row: int, column: int) -> str:
    return str(told["tile"]).replace("{row}", f"{row + 1}").replace("{column}", f"{column + 1}")


def _places(messages: Any) -> list[Any]:
    """The parts of messages that are images."""
    said = messages if isinstance(messages, list | tuple) else ()
    parts = (one.get("content") for one in said if isinstance(one, dict))
    every = (part for each in parts if isinstance(each, list | tuple) for part in each)
    return [part for part in every if isinstance(part, dict) and part.get("type") == "image"]
