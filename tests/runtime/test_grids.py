"""Pictures of any size: their size, their patches and the places of their tokens, as transformers
has them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2VLImageProcessorPil, Qwen3VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from lepton_compile.runtime import LoaderError
from lepton_compile.runtime.loader_grids import (
    MOST_PIXELS,
    check_grids,
    offsets,
    patches,
    sized,
    tokens_of,
)

TOKEN = 9
PLAIN = {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "resample": "bicubic"}
sides = st.integers(1, 90)


def grid(patch: int = 4, merge: int = 2, frames: int = 2, window: int = 0) -> dict[str, int]:
    return {"patch": patch, "merge": merge, "frames": frames, "window": window}


def noise(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 256, (rows, columns, 3), np.uint8)


@given(sides, sides, st.integers(1, 7), st.integers(1, 3), st.integers(1, 60), st.integers(0, 60))
def test_sizes_are_those_of_transformers(
    rows: int, columns: int, patch: int, merge: int, fewest: int, more: int
) -> None:
    unit = patch * merge
    least, most = fewest * unit**2, (fewest + more) * unit**2
    how = {**PLAIN, "least": least, "most": most}
    wanted = smart_resize(rows, columns, unit, least, most)
    found = sized(noise(rows, columns), how, grid(patch, merge))
    assert found.shape == (*wanted, 3)


@pytest.mark.parametrize("shape", [(40, 61), (9, 120), (33, 8), (64, 64)])
def test_patches_are_those_of_transformers(shape: tuple[int, int]) -> None:
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 256, "longest_edge": 4096},
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        do_rescale=False,
        do_normalize=False,
    )
    made = processor([Image.fromarray(noise(*shape))], return_tensors="np")
    own = sized(noise(*shape), {**PLAIN, "least": 256, "most": 4096}, grid())
    found, places = patches(own.transpose(2, 0, 1).astype(np.float32), grid())
    np.testing.assert_array_equal(found.reshape(-1, found.shape[-1]), made["pixel_values"])
    frame = torch.from_numpy(np.asarray(made["image_grid_thw"]))
    wanted = get_vision_position_ids(frame, 2)
    np.testing.assert_array_equal(places.reshape(-1, 2), wanted.numpy())


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_windows_are_those_of_transformers(rows: int, columns: int, side: int) -> None:
    """Filled up to whole ones, in which nothing else stands."""
    picture = np.random.default_rng(0).random((3, 8 * rows, 8 * columns), np.float32)
    whole, _ = patches(picture, grid())
    found, places = patches(picture, grid(window=side))
    assert found.shape[:3] == (-(-rows // side) * -(-columns // side), side**2, 4)
    frame = torch.tensor([[1, 2 * rows, 2 * columns]])
    order, ends = get_vision_window_index(frame, 2, 8 * side, 4)
    here = places[:, :, 0, 0] >= 0
    np.testing.assert_array_equal(found[here], whole[0][order.numpy()])
    lengths = np.diff(ends.numpy()) // 4
    np.testing.assert_array_equal(here.sum(1), lengths)
    assert not found[~here].any()
    assert (places[~here] == -1).all()


def theirs(ids: Sequence[int], sizes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, int]:
    """Positions (3, tokens) as transformers counts them, and how far they are behind at the end."""
    sees = SimpleNamespace(spatial_merge_size=2)
    model = SimpleNamespace(config=SimpleNamespace(vision_config=sees))
    model.get_vision_position_ids = Qwen3VLModel.get_vision_position_ids.__get__(model)
    row = torch.tensor([ids])
    grids = torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in sizes]).reshape(-1, 3)
    kinds = (row == TOKEN).to(torch.int32)
    given: Any = Qwen3VLModel.get_rope_index(
        model, row, mm_token_type_ids=kinds, image_grid_thw=grids
    )
    return given[0][:, 0].numpy(), int(given[1])


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=3), st.integers(1, 4))
def test_positions_are_those_of_transformers(sizes: list[tuple[int, int]], words: int) -> None:
    ids = [1] * words
    for rows, columns in sizes:
        ids += [TOKEN] * (rows * columns) + [2] * words
    pictures = [np.zeros((3, 8 * rows, 8 * columns)) for rows, columns in sizes]
    found = offsets(ids, pictures, {"placeholder": TOKEN, "grid": grid()})
    wanted, behind = theirs(ids, sizes)
    np.testing.assert_array_equal(np.arange(len(ids)) + found[:, :-1], wanted)
    assert (found[:, -1] == behind).all()
    assert (found <= 0).all()  # so that tables are as long as the cache


def test_tokens_of_a_picture() -> None:
    assert tokens_of(np.zeros((3, 24, 40)), grid()) == (3, 5)


def test_thin_pictures_are_refused() -> None:
    how = {**PLAIN, "least": 64, "most": 4096}
    assert sized(np.zeros((1, 200, 3), np.uint8), how, grid()).shape[1] > 100
    for shape in ((1, 201), (402, 2)):
        with pytest.raises(LoaderError, match="too thin"):
            sized(np.zeros((*shape, 3), np.uint8), how, grid())


def manifest(**told: Any) -> dict[str, Any]:
    """What is read of a manifest, as far as pictures of any size go."""
    shape = ["windows", 16, 4, 96]
    made = {
        "image": {"least": 64, "most": 4096},
        "generation": {"pictures": {"grid": grid(window=4)}},
        "inputs": [
            {"name": "encoder_pixel_values", "shape": shape},
            {"name": "encoder_positions", "shape": [*shape[:3], 2]},
            {"name": "position_offsets", "shape": [3, "batch", "sequence"]},
        ],
    }
    for name, value in told.items():
        (made["image"] if name in ("least", "most") else made["generation"]["pictures"]["grid"])[  # type: ignore[index, call-overload]
            name
        ] = value
    return made


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch": 0},
        {"patch": 5},
        {"patch": 65},
        {"merge": 0},
        {"merge": 3},
        {"frames": 0},
        {"frames": 10**9},
        {"window": 3},
        {"window": 65},
        {"window": -1},
        {"window": None},
        {"patch": "4"},
        {"least": 0},
        {"least": 4097},
        {"most": MOST_PIXELS + 1},
        {"most": None},
    ],
)
def test_patches_that_no_picture_has_are_refused(wrong: dict[str, Any]) -> None:
    check_grids(manifest())
    with pytest.raises(LoaderError, match=r"manifest\.json is damaged"):
        check_grids(manifest(**wrong))


def test_a_model_without_a_preprocessor_passes() -> None:
    check_grids({**manifest(), "image": None})
