"""One output: what is ranked, and what is compared as numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compile.numerics.outputs import Output
from lepton_compile.numerics.verify_report import OutputReport


def report(name: str, reference: np.ndarray, candidate: np.ndarray) -> OutputReport:
    output = Output(name)
    output.update(reference, candidate)
    return output.report()


def test_scores_of_each_token_are_ranked() -> None:
    reference = np.eye(4)[None, :3]
    found = report("logits", reference, reference[..., [0, 2, 1, 3]])
    assert (found.argmax_agreement, found.argmax_rows) == (pytest.approx(1 / 3), 3)


@pytest.mark.parametrize("width", [1, 4])
def test_what_is_no_score_is_not_ranked(width: int) -> None:
    found = report("embedding", np.ones((2, width)), np.full((2, width), 1.5))
    assert (found.argmax_agreement, found.argmax_rows, found.difference.max_abs) == (None, 0, 0.5)


def test_a_score_of_each_token_is_compared_at_every_token() -> None:
    reference, candidate = np.zeros((2, 3, 1)), np.zeros((2, 3, 1))
    candidate[1, 2] = 0.5
    assert report("logits", reference, candidate).difference.max_abs == 0.5
