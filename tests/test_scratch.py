"""Arrays on disk: rows come back as they went in, and nothing stays behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lepton_compile.scratch import Shelf
from tests.passes.support import random


def test_rows_come_back_as_they_went_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shelf = Shelf()
    first, second = shelf.zeros((5, 3), np.float32), shelf.zeros((4, 2, 2), np.float16)
    np.testing.assert_array_equal(second.read(), np.zeros((4, 2, 2)))
    rows, halves = random(2, 3, seed=1), random(4, 2, 2, seed=2).astype(np.float16)
    second.write(halves)
    first.write(rows.T.copy().T, 3)  # not contiguous
    np.testing.assert_array_equal(first.read(), np.concatenate([np.zeros((3, 3)), rows]))
    np.testing.assert_array_equal(first.read(2, 4), first.read()[2:4])
    np.testing.assert_array_equal(second.read(1, 9), halves[1:])
    assert (len(first), len(second), second.read().dtype) == (5, 4, np.float16)
    assert list(tmp_path.iterdir()) == [], "the file has no name"


def test_what_is_read_may_be_written_to() -> None:
    kept = Shelf().zeros((2, 2), np.float32)
    kept.read()[:] = 7
    np.testing.assert_array_equal(kept.read(), np.zeros((2, 2)))


def test_errors_of_the_disk_name_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing"
    monkeypatch.setattr("tempfile.tempdir", str(missing))
    with pytest.raises(OSError, match="missing") as caught:
        Shelf()
    assert caught.value.filename == str(missing)
