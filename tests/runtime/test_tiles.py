"""Pictures in tiles are those of transformers' own classes, to the last byte."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from lepton_compile.runtime.loader_guard import LoaderError
from lepton_compile.runtime.loader_tiles import check_tiles, tiled

SIDE = 16
SHAPES = [
    *((1, 1), (1, 4096), (4096, 1), (SIDE, SIDE), (2 * SIDE, SIDE), (SIDE + 1, SIDE)),
    *((37, 1000), (1000, 37), (60, 80), (64, 64), (100, 75), (4100, 31), (29, 5000)),
]
EDGES = (64, 63, 16, 15, 17, 50)


def pictured(rows: int, columns: int) -> np.ndarray:
    """A picture of noise, the same each time."""
    made = np.random.default_rng(rows * 10007 + columns)
    return made.integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def manifest(size: int | list[int] = SIDE, **tiles: Any) -> dict[str, Any]:
    """What is read of a manifest, as far as pictures go."""
    sizes = [size, size] if isinstance(size, int) else size
    plain = {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3, "resample": "lanczos"}
    return {"image": {"size": sizes, "resize": sizes, "crop": False, **plain, "tiles": tiles}}


def by_edge(edge: int, side: int = SIDE, split: bool = True) -> dict[str, Any]:
    """The manifest's ``image`` of Idefics3."""
    most = (-(-(edge + edge % 2) // side)) ** 2 if split else 1
    checked = manifest(side, kind="longest-edge", edge=edge, most=most)
    check_tiles(checked)
    how: dict[str, Any] = checked["image"]
    return how


def theirs(processor: Any, picture: np.ndarray, **how: Any) -> tuple[np.ndarray, int, int]:
    """Tiles of bytes (tiles, rows, columns, 3) as transformers makes them, and their grid."""
    made = processor(
        [[Image.fromarray(picture)]],
        **{"do_rescale": False, "do_normalize": False, "return_row_col_info": True, **how},
    )
    values = np.asarray(made["pixel_values"][0])
    return values.transpose(0, 2, 3, 1), made["rows"][0][0], made["cols"][0][0]


def by_ratio(least: int, most: int, size: int | list[int] = SIDE) -> dict[str, Any]:
    """The manifest's ``image`` of InternVL."""
    checked = manifest(size, kind="closest-ratio", least=least, most=most)
    check_tiles(checked)
    how: dict[str, Any] = checked["image"] | {"resample": "bicubic"}
    return how


def of_patches(picture: np.ndarray, how: dict[str, Any]) -> np.ndarray:
    """Tiles of bytes (tiles, rows, columns, 3) as transformers makes them of InternVL."""
    high, wide = how["size"]
    processor = GotOcr2ImageProcessorPil(
        size={"height": high, "width": wide},
        crop_to_patches=True,
        do_rescale=False,
        do_normalize=False,
        min_patches=how["tiles"]["least"],
        max_patches=how["tiles"]["most"],
    )
    made = processor([Image.fromarray(picture)])["pixel_values"]
    return np.asarray(made).transpose(0, 2, 3, 1)


def same(found: list[np.ndarray], wanted: np.ndarray) -> bool:
    """Whether they are equal, and bytes as they are."""
    return {tile.dtype for tile in found} == {np.dtype("uint8")} and np.array_equal(found, wanted)


@pytest.mark.parametrize("kind", [SmolVLMImageProcessorPil, Idefics3ImageProcessorPil])
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("split", [True, False])
def test_tiles_by_the_longest_edge(kind: Any, edge: int, split: bool) -> None:
    processor = kind(
        size={"longest_edge": edge}, max_image_size={"longest_edge": SIDE}, do_image_splitting=split
    )
    for shape in SHAPES:
        picture = pictured(*shape)
        found, rows, columns = tiled(picture, by_edge(edge, split=split))
        wanted = theirs(processor, picture)
        assert (rows, columns) == wanted[1:], shape
        assert same(found, wanted[0]), shape


@pytest.mark.parametrize(("least", "most"), [(1, 12), (1, 1), (3, 7), (5, 5), (1, 40)])
@pytest.mark.parametrize("size", [SIDE, [SIDE, 24]])
def test_tiles_by_the_closest_ratio(least: int, most: int, size: int | list[int]) -> None:
    grids = set()
    for shape in SHAPES:
        picture = pictured(*shape)
        how = by_ratio(least, most, size)
        found, rows, columns = tiled(picture, how)
        assert same(found, of_patches(picture, how)), shape
        grids.add((rows, columns))
        assert len(found) == (rows * columns + 1 or 1)
    assert (0, 0) in grids if least == 1 else (0, 0) not in grids


@given(st.integers(1, 400), st.integers(1, 400), st.integers(6, 40), st.integers(1, 20), st.data())
@settings(max_examples=300, deadline=None)
def test_ratios_of_any_size(rows: int, columns: int, side: int, most: int, data: Any) -> None:
    how = by_ratio(data.draw(st.integers(1, most)), most, side)
    picture = pictured(rows, columns)
    found, down, across = tiled(picture, how)
    assert same(found, of_patches(picture, how))
    wide, high = get_optimal_tiled_canvas(
        (rows, columns), (side, side), how["tiles"]["least"], how["tiles"]["most"]
    )
    assert (down, across) == ((0, 0) if wide * high == 1 else (high, wide))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 90), st.integers(6, 40))
@settings(max_examples=300, deadline=None)
def test_grids_of_any_size(rows: int, columns: int, edge: int, side: int) -> None:
    processor = SmolVLMImageProcessorPil(
        size={"longest_edge": edge}, max_image_size={"longest_edge": side}
    )
    picture = pictured(rows, columns)
    found, *grid = tiled(picture, by_edge(edge, side))
    wanted = theirs(processor, picture)
    assert grid == [*wanted[1:]]
    assert same(found, wanted[0])


def test_the_longest_edge_at_the_limit() -> None:
    processor = SmolVLMImageProcessorPil(
        size={"longest_edge": 4096}, max_image_size={"longest_edge": 512}
    )
    picture = pictured(3, 5000)
    found, *grid = tiled(picture, by_edge(4096, 512))
    wanted = theirs(processor, picture)
    assert grid == [*wanted[1:]] == [1, 8]
    assert same(found, wanted[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "other"},
        {"kind": None},
        {"edge": 0},
        {"edge": 64.0},
        {"edge": 4097},
        {"edge": 10**9},
        {"edge": None},
        {"edge": 65},  # of which there are more tiles than it says
        {"most": 0},
        {"most": 15},
        {"most": 10**9},
        {"most": [16]},
        {"size": SIDE - 1},
        {"size": 0},
        {"size": [SIDE, 0]},
        {"size": [SIDE]},
        {"size": [SIDE, SIDE, SIDE]},
        {"size": 4096},
    ],
)
def test_tiles_that_no_picture_has_are_refused(wrong: dict[str, Any]) -> None:
    right = {"kind": "longest-edge", "edge": 64, "most": 16}
    check_tiles(manifest(**right))
    with pytest.raises(LoaderError, match=r"manifest\.json is damaged: manifest\.image\.tiles"):
        check_tiles(manifest(**right | wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "longest-edge"},
        {"least": 0},
        {"least": 13},
        {"least": None},
        {"least": 1.5},
        {"most": 257},
        {"most": 10**9},
        {"size": 0},
        {"size": 2048},
    ],
)
def test_grids_that_no_picture_has_are_refused(wrong: dict[str, Any]) -> None:
    right = {"kind": "closest-ratio", "least": 2, "most": 12}
    check_tiles(manifest(**right))
    with pytest.raises(LoaderError, match=r"manifest\.json is damaged: manifest\.image\.tiles"):
        check_tiles(manifest(**right | wrong))


@pytest.mark.parametrize("wrong", [[], "64", 7])
def test_tiles_of_another_form_are_refused(wrong: Any) -> None:
    made = manifest()
    made["image"]["tiles"] = wrong
    with pytest.raises(LoaderError, match=r"manifest\.image\.tiles cannot be"):
        check_tiles(made)


def test_models_without_tiles_pass() -> None:
    for image in (None, manifest()["image"] | {"tiles": None}):
        check_tiles({"image": image})
    without: dict[str, Any] = {}
    check_tiles(without)
    assert without == {"image": None}
