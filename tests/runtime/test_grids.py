"""Pictures of any size: their patches, as transformers has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from lepton_compile.runtime import LoaderError
from lepton_compile.runtime.loader_grids import (
    MOST_PIXELS,
    check_grids,
    patches,
    sized,
    tokens_of,
)

PLAIN = {"scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3, "resample": "bicubic"}


def grid(patch: int = 4, merge: int = 2, frames: int = 2, window: int = 0) -> dict[str, int]:
    return {"patch": patch, "merge": merge, "frames": frames, "window": window, "axes": 1}


def noise(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 256, (rows, columns, 3), np.uint8)


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


def test_tokens_of_a_picture() -> None:
    assert tokens_of(np.zeros((3, 24, 40)), grid()) == (3, 5)


def manifest(**told: Any) -> dict[str, Any]:
    """What is read of a manifest, as far as pictures of any size go."""
    shape = ["windows", 16, 4, 96]
    made = {
        "image": {"least": 64, "most": 4096},
        "generation": {"pictures": {"grid": grid(window=4)}},
        "inputs": [
            {"name": "encoder_pixel_values", "shape": shape},
            {"name": "encoder_positions", "shape": [*shape[:3], 2]},
        ],
    }
    for name, value in told.items():
        entry: Any = made["image"]
        if name not in ("least", "most", "fit", "edge"):
            entry = made["generation"]["pictures"]["grid"]  # type: ignore[index, call-overload]
        entry[name] = value
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
        {"axes": 3},  # and no input for offsets
        {"axes": None},
        {"axes": 2},
        {"axes": 0},
        {"fit": 1},
        {"fit": "edge"},
        {"fit": "edge", "edge": 0},
        {"fit": "edge", "edge": -5},
        {"fit": "edge", "edge": "9"},
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
