"""How large pictures are made that keep about their form: by each rule as transformers does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size
from transformers.models.glm46v.image_processing_pil_glm46v import smart_resize as scale_resize
from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import (
    smart_resize as grow_resize,
)
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from lepton_compile.runtime import LoaderError
from lepton_compile.runtime.loader_between import between
from lepton_compile.runtime.loader_edge import bounded
from lepton_compile.runtime.loader_filling import filled
from lepton_compile.runtime.loader_grids import sized
from lepton_compile.runtime.loader_growing import grown
from lepton_compile.runtime.loader_scaling import scaled

PLAIN = {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "resample": "bicubic"}
GRID = {"patch": 4, "merge": 2, "frames": 2, "window": 0}
sides, long_sides = st.integers(1, 90), st.integers(1, 9000)
units = st.integers(1, 7), st.integers(1, 3)


@given(sides, sides, *units, st.integers(1, 60), st.integers(0, 60))
def test_between_the_fewest_and_the_most(
    rows: int, columns: int, patch: int, merge: int, fewest: int, more: int
) -> None:
    unit = patch * merge
    how = {"least": fewest * unit**2, "most": (fewest + more) * unit**2}
    wanted = smart_resize(rows, columns, unit, how["least"], how["most"])
    assert tuple(between(rows, columns, how, unit)) == tuple(wanted)


@given(sides, sides, *units, st.integers(1, 60), st.integers(0, 60))
def test_grown_to_a_token_first(
    rows: int, columns: int, patch: int, merge: int, fewest: int, more: int
) -> None:
    unit = patch * merge
    how = {"least": fewest * unit**2, "most": (fewest + more) * unit**2}
    try:
        wanted = grow_resize(rows, columns, unit, how["least"], how["most"])
    except ValueError:
        with pytest.raises(LoaderError, match="too thin"):
            between(*grown(rows, columns, unit), how, unit)
        return
    assert tuple(between(*grown(rows, columns, unit), how, unit)) == tuple(wanted)


@given(sides, sides, *units, st.integers(1, 60), st.integers(0, 60), st.integers(1, 3))
def test_scaled_to_a_token_first(
    rows: int, columns: int, patch: int, merge: int, fewest: int, more: int, frames: int
) -> None:
    unit = patch * merge
    how = {"least": fewest * unit**2, "most": (fewest + more) * unit**2}
    pixels = (how["least"] * frames, how["most"] * frames)
    try:
        wanted = scale_resize(frames, rows, columns, frames, unit, *pixels)
    except ValueError:
        with pytest.raises(LoaderError, match="too thin"):
            between(*scaled(rows, columns, unit), how, unit)
        return
    assert tuple(between(*scaled(rows, columns, unit), how, unit)) == tuple(wanted)


def test_thin_pictures_are_refused() -> None:
    how = {"least": 64, "most": 4096}
    assert between(1, 200, how, 8)[1] > 100
    for shape in ((1, 201), (402, 2)):
        with pytest.raises(LoaderError, match="too thin"):
            between(*shape, how, 8)


@given(long_sides, long_sides, *units, st.integers(1, 1120))
def test_as_many_as_there_may_be(
    rows: int, columns: int, patch: int, merge: int, tokens: int
) -> None:
    most = tokens * merge**2
    try:
        wanted = get_aspect_ratio_preserving_size(rows, columns, patch, most, merge)
    except ValueError:  # where a side of a single token falls short of it by the last bit
        assume(False)
    how = {"most": most * patch**2}
    assert tuple(filled(rows, columns, how, patch * merge)) == tuple(wanted)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9000), (9000, 1), (2, 7001), (1200, 1600)])
def test_as_many_of_odd_forms(shape: tuple[int, int]) -> None:
    wanted = get_aspect_ratio_preserving_size(*shape, 16, 280 * 9, 3)
    assert tuple(filled(*shape, {"most": 280 * 48**2}, 48)) == tuple(wanted)


@given(long_sides, long_sides, st.integers(1, 2000), st.integers(1, 40))
def test_up_to_a_longest_edge(rows: int, columns: int, edge: int, unit: int) -> None:
    picture = np.empty((rows, columns, 3), np.uint8)
    wanted = get_resize_output_image_size(picture, (edge, edge), (unit, unit), "channels_last")
    if not all(wanted):
        with pytest.raises(LoaderError, match="too thin"):
            bounded(rows, columns, {"edge": edge}, unit)
        return
    assert tuple(bounded(rows, columns, {"edge": edge}, unit)) == tuple(wanted)


@pytest.mark.parametrize(
    ("fit", "shape"),
    [
        ({}, (56, 40)),
        ({"fit": "fill"}, (56, 40)),
        ({"fit": "grow"}, (56, 40)),
        ({"fit": "edge", "edge": 30}, (32, 24)),
    ],
)
def test_a_picture_gets_the_size_of_its_rule(fit: dict[str, Any], shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (100, 70, 3), np.uint8)
    how = {**PLAIN, "least": 64, "most": 2400, **fit}
    assert sized(picture, how, GRID).shape == (*shape, 3)


def test_a_rule_that_nobody_knows() -> None:
    how = {**PLAIN, "least": 64, "most": 2400, "fit": "other"}
    with pytest.raises(LoaderError, match="damaged: no images are made by other"):
        sized(np.zeros((9, 9, 3), np.uint8), how, GRID)
