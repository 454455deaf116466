"""Pictures beside what is written.

An encoder makes rows of numbers of each, and a decoder puts these in the places of tokens that
stand for pictures; both are engines of ONNX Runtime, over the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import check_form, failing, refuse

__all__ = ["PIXELS", "Seer", "check_pictures", "counts", "show", "without_pictures"]

PIXELS = "encoder_pixel_values"
TEXTS: tuple[str, ...] = ("name", "mark", "one", "first", "tile", "line", "whole")
PICTURES = {"placeholder": int, "tokens?": int, "mutual?": bool, **{f"{t}?": str for t in TEXTS}}
SEEING = {"engines": [{"encoder": str}], "generation": {"pictures": PICTURES}, "image?": {}}


def check_pictures(manifest: dict[str, Any]) -> None:
    """Refuse a manifest that does not say what is opened, and what stands for pictures."""
    check_form(manifest, SEEING, "manifest")
    lost = [e["encoder"] for e in manifest["engines"] if e["encoder"] not in e["files"]]
    refuse(lost, f"manifest.json uses {lost} without giving their digests")
    told, ranges, texts = manifest["generation"]["pictures"], manifest["ranges"], TEXTS[:3]
    if (manifest["image"] or {}).get("tiles"):
        from lepton_compile.runtime.loader_tiles import check_tiles

        check_tiles(manifest)
        texts = TEXTS
    if manifest["tokenizer"]:
        check_form(told, dict.fromkeys(texts, str), "manifest.generation.pictures")
    rows, token, sized = told["tokens"] or 0, told["placeholder"], "grid" in told
    if sized:
        from lepton_compile.runtime.loader_grids import check_grids

        check_grids(manifest)
        rows = 1
    bad = not 0 < rows <= ranges["sequence"][1] or token > ranges["input_ids"][1]
    refuse(bad, f"manifest.json is damaged: {rows} of token {token} cannot stand for a picture")
    shapes = [value["shape"] for value in manifest["inputs"] if value["name"] == PIXELS]
    fit = [len(s) == 4 and all(isinstance(size, int) for size in s[1 + sized :]) for s in shapes]
    refuse(fit != [True], f"manifest.json is damaged: {PIXELS} has the shapes {shapes}")


def counts(told: Mapping[str, Any], pictures: Sequence[np.ndarray] | np.ndarray) -> list[int]:
    """How many tokens stand for each picture, or tile of one."""
    if grid := told.get("grid"):
        from lepton_compile.runtime.loader_grids import tokens_of

        return [int(np.prod(tokens_of(one, grid))) for one in pictures]
    return [told["tokens"]] * len(pictures)


def without_pictures(model: Any, given: dict[str, np.ndarray]) -> None:
    """Add that there are none, where none are given."""
    if "encoder_positions" in model.inputs:
        from lepton_compile.runtime.loader_grids import without_grids

        without_grids(model, given)
        return
    given.setdefault(PIXELS, np.zeros((0, *model.inputs[PIXELS]["shape"][1:]), np.float32))


class Seer:
    """The sessions of an encoder and a decoder, as one; ``told`` is what stands for pictures."""

    def __init__(self, encoder: Any, decoder: Any, told: Mapping[str, Any]) -> None:
        from onnxruntime import OrtValue

        self.encoder, self.decoder, self.told = encoder, decoder, told
        self.run_with_iobinding = decoder.run_with_iobinding
        self.value = OrtValue.ortvalue_from_numpy
        (gives,) = encoder.get_outputs()
        if gives.type == "tensor(bfloat16)":
            from lepton_compile.runtime.loader_ort_cuda import BFLOAT16

            typed = OrtValue.ortvalue_from_numpy_with_onnx_type  # of bits: numpy has no such type
            self.value = partial(typed, onnx_element_type=BFLOAT16)
        dtype = {"tensor(float)": "float32", "tensor(float16)": "float16"}.get(gives.type, "uint16")
        self.name, self.nothing = gives.name, np.zeros((0, gives.shape[1]), dtype)

    def see(self, pixels: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Rows (tokens, width) of pictures (3, rows, columns), each on its own."""
        with failing("the engine failed on what it sees"):
            each = (self.encoder.run([self.name], {PIXELS: one[None]})[0] for one in pixels)
            found = np.concatenate([*each])
        bad = len(found) != self.told["tokens"] * len(pixels)
        refuse(bad, "manifest.json is damaged: an image stands in another number of places")
        return found

    def run(self, names: list[str], given: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs of the decoder by all that both are given."""
        pixels, own = given[PIXELS], {n: array for n, array in given.items() if n != PIXELS}
        rows, token = self.told["tokens"], self.told["placeholder"]
        places = int((given["input_ids"] == token).sum())
        bad = places != rows * len(pixels)
        refuse(bad, f"{len(pixels)} tiles take {rows} placeholders each, and the ids have {places}")
        seen = self.see(pixels) if len(pixels) else self.nothing
        found: list[np.ndarray] = self.decoder.run(names, {**own, self.name: seen})
        return found

    def io_binding(self) -> Any:
        """A binding for tokens without pictures."""
        binding = self.decoder.io_binding()
        binding.bind_ortvalue_input(self.name, self.value(self.nothing))
        return binding


def show(cache: Any, at: int, prompts: Sequence[Any], held: int) -> int:
    """Bind what is seen in prompts, the first of which stands in place ``at``, to the cache.

    Returns how many tokens of those that are ``held`` still count: up to the first picture that is
    another than was in its place, and none of a part of one whose tokens see each other.
    """
    told, shown = cache.session.told, cache.__dict__.setdefault("shown", {})
    here, names = np.equal(prompts[0], told["placeholder"]), [prompt.names for prompt in prompts]
    every = [picture for prompt in prompts for picture in prompt.pixels]
    ends = np.cumsum(each := counts(told, every))
    starts = np.flatnonzero(here)[(ends - each)[: len(names[0])].astype(int)]
    before = [*shown.get(at, ()), *[None] * len(starts)]
    other = [s for s, was, name in zip(starts, before, names[0], strict=False) if was != name]
    held = min([held, *(int(start) // 16 * 16 for start in other)])
    while told["mutual"] and held and here[held - 1] and here[held]:
        held -= 16
    shown |= dict(enumerate(names, at))
    known = int((ends <= (first := here[:held].sum())).sum())  # pictures that are held whole
    if pixels := every[known:]:
        seen = cache.session.see(pixels)[first - sum(each[:known]) :]
        cache.binding.bind_ortvalue_input(cache.session.name, cache.session.value(seen))
    return held
