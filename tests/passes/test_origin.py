"""Where a graph came from: a clone, which each target gets, knows it too."""

from __future__ import annotations

from lepton_passes.origin import from_file, mark_file
from tests.passes.support import load


def test_a_mark_is_kept_by_clones() -> None:
    model = load("main (float[n] x) => (float[n] y) { y = Neg (x) }")
    assert not from_file(model)
    mark_file(model)
    assert from_file(model)
    assert from_file(model.clone())
