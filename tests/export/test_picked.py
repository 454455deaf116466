"""Rows that a model picks by a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lepton_compile.errors import ExportError
from lepton_compile.export.capture.picked import captured_picks

from .harness import compiled, relative_error, run, save
from .zoo import MORE_ENCODERS


@pytest.mark.parametrize("ends", [1, 2])
def test_a_text_is_classified_by_its_last_end_token(ends: int, tmp_path: Path) -> None:
    """One for each sentence, and padding behind them."""
    model = save(MORE_ENCODERS["bart"][0], "text-classification", tmp_path)
    exported, session = compiled(tmp_path, "text-classification")
    assert exported.how == "stamped"
    ids = np.random.default_rng(0).integers(4, 99, (3, 12))
    mask = np.ones_like(ids)
    for row, length in enumerate((12, 9, 7)):
        ids[row, [length - 1, 3][:ends]] = 2
        ids[row, length:], mask[row, length:] = 1, 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        wanted = model(**{k: torch.from_numpy(v) for k, v in feeds.items()}).logits.numpy()
    assert relative_error(run(session, feeds)["logits"], wanted) <= 1e-4


class _First(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x.amax(-1) > 0].view(x.shape[0], -1, x.shape[2])[:, 0, :]


# As modules of transformers have it, for what they say of their numbers.
torch_compilable_check = print


def test_other_rows_are_refused() -> None:
    model = _First()
    with captured_picks(model), pytest.raises(ExportError, match="that a mask picks") as caught:
        model(torch.empty(2, 5, 4, device="meta"))
    assert caught.value.found == "(slice(None, None, None), 0, slice(None, None, None))"
    assert torch_compilable_check is print
