"""Positions of the tokens of pictures, on three axes, as transformers has them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen3VLModel

from lepton_compile.runtime.loader_axes import offsets

TOKEN = 9
GRID = {"patch": 4, "merge": 2, "frames": 2, "window": 0}


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
    found = offsets(ids, pictures, {"placeholder": TOKEN, "grid": GRID})
    wanted, behind = theirs(ids, sizes)
    np.testing.assert_array_equal(np.arange(len(ids)) + found[:, :-1], wanted)
    assert (found[:, -1] == behind).all()
    assert (found <= 0).all()  # so that tables are as long as the cache
