"""scripts/bench/experts.py."""

from __future__ import annotations

from pathlib import Path

import experts
import numpy as np
import pytest

from lepton_plugins.native import LIBRARY
from tests.plugins.cpu_library import library, needs_library

pytestmark = needs_library

SMALL = {
    "swiglu": experts.Shape(32, 64, 4, 2),
    "several parts": experts.Shape(64, 32, 4, 2, 1.702, 1.0, 7.0, 1, biases=True),
}
# QMoE rounds activations to 8 bits for weights of either kind.
CLOSE = 0.03


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", list(SMALL.values()), ids=list(SMALL))
def test_both_kernels_compute_the_layer(shape: experts.Shape, bits: int, tmp_path: Path) -> None:
    found = []
    given = experts.feeds(shape, 9)
    for name, make in experts.KERNELS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / LIBRARY).write_bytes(library().read_bytes())
        session = experts.opened(shape, bits, make(), folder, threads=1)
        found.append(session.run(None, given)[0])
    ours, theirs = found
    assert ours.shape == (9, shape.width)
    assert np.abs(ours - theirs).max() <= CLOSE * np.ptp(theirs)


def test_what_is_asked_for() -> None:
    found = experts.arguments(["--only", "olmoe-1b-7b", "--bits", "4"])
    assert (found.only, found.bits, found.rounds) == (["olmoe-1b-7b"], [4], 7)
    with pytest.raises(SystemExit):
        experts.arguments(["--only", "bert"])
