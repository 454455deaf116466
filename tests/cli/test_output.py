"""Numbers, counts and sizes as people read them."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compile.cli.output import many_text, number_text
from lepton_compile.cli.run import _embeddings
from lepton_compile.report.page import render_number


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [
        (None, 4, "-"),
        (0.0001234, 3, "0.000123"),
        (404.21, 4, "404.2"),
        (9999.4, 4, "9999"),
        (9999.6, 4, "10,000"),
        (10130.4, 4, "10,130"),
        (-123456.7, 3, "-123,457"),
        (1234567, 4, "1,234,567"),
        (float("inf"), 4, "inf"),
        (float("nan"), 4, "nan"),
    ],
)
def test_large_numbers_have_no_exponent(value: float | None, digits: int, said: str) -> None:
    """A rate of 10,130 tokens a second was 1.013e+04."""
    assert number_text(value, digits) == said


def test_the_page_says_numbers_alike() -> None:
    for value in (0.0001234, 404.21, 10130.4, -123456.7, 1234567):
        assert render_number(value) == number_text(value)


def test_one_is_not_many() -> None:
    assert [many_text(count, "thread") for count in (0, 1, 2, 1024)] == [
        "0 threads",
        "1 thread",
        "2 threads",
        "1,024 threads",
    ]


def test_one_vector_is_compared_with_none(capsys: pytest.CaptureFixture[str]) -> None:
    _embeddings(["a"], np.ones((1, 3)), as_json=False)
    assert capsys.readouterr().out == "1 vector of 3 numbers, which --json has\n"
    _embeddings(["a", "b"], np.ones((2, 3)), as_json=False)
    assert "2 vectors of 3 numbers; similarity:" in capsys.readouterr().out
