"""What answers begin with, and what is checked of the texts before they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lepton_compile.runtime.loader_guard import LoaderError, refuse
from lepton_compile.runtime.loader_reads import starts, with_mask
from lepton_compile.runtime.loader_source import IDS, MASK


class Model:
    """One whose answers begin with 2 and 7, and that reads no more than five tokens of 20."""

    task = "text2text-generation"

    def __init__(self) -> None:
        self.manifest = {"generation": {"start": [2, 7]}}
        self.tokenizer = self

    def token_to_id(self, name: str) -> int | None:
        return {"<pad>": 0, "<de>": 9}.get(name)

    def fit(self, name: str, value: Any) -> None:
        array = np.array(value)
        assert (name, array.ndim) == (IDS, 2)
        refuse(array.shape[1] > 5, "too long")
        refuse((array >= 20).any(), "outside the vocabulary")


@pytest.mark.parametrize(
    ("start", "begun"),
    [
        (None, [2, 7]),
        ([], [2]),
        (0, [2, 0]),
        (np.int32(5), [2, 5]),
        ("<de>", [2, 9]),
        (["<de>", 4, np.int64(3), "<pad>"], [2, 9, 4, 3, 0]),
        ((8, 9), [2, 8, 9]),
        (np.array([8, 9]), [2, 8, 9]),
        (iter([8]), [2, 8]),
    ],
)
def test_what_stands_for_the_beginning_stays(start: Any, begun: list[int]) -> None:
    sources = [[4, 5, 6], [8], [9, 10, 11, 12, 13]]
    found = starts(Model(), sources, start)
    assert found == [begun] * 3
    assert [one.source for one in found] == sources
    assert all(type(token) is int for token in found[0])
    found[0].append(1)
    assert found[1] == begun, "answers share what they begin with"


@pytest.mark.parametrize(
    ("sources", "start", "words"),
    [
        ([[]], None, "the text is empty"),
        ([[4], []], None, "the text is empty"),
        ([[4], [5] * 6, [6]], None, "too long"),
        ([[4, 5], [20]], None, "outside the vocabulary"),
        ([[4]], "<fr>", "no token '<fr>'"),
        ([[4]], ["<de>", "<fr>"], "no token '<fr>'"),
        ([[4]], 2.5, "start takes names of tokens or ids"),
        ([[4]], [2.5], "start takes names of tokens or ids"),
        ([[4]], [True], "start takes names of tokens or ids"),
        ([[4]], [None], "start takes names of tokens or ids"),
        ([[4]], [[3]], "start takes names of tokens or ids"),
    ],
)
def test_what_cannot_be_begun(sources: list[list[int]], start: Any, words: str) -> None:
    with pytest.raises(LoaderError, match=words):
        starts(Model(), sources, start)


def test_a_model_that_reads_nothing_takes_no_start() -> None:
    model = Model()
    model.task = "text-generation"
    with pytest.raises(LoaderError, match="no use: this model does text-generation"):
        starts(model, [[4]], [9])


def test_a_mask_is_made_where_there_is_none() -> None:
    ids, mask = np.array([[4, 5, 6], [7, 8, 9]]), np.array([[1, 1, 1], [1, 0, 0]])
    for given, wanted in (({IDS: ids}, np.ones_like(ids)), ({IDS: ids, MASK: mask}, mask)):
        with_mask(given)
        np.testing.assert_array_equal(given[MASK], wanted)
    nothing: dict[str, np.ndarray] = {}
    with_mask(nothing)
    assert nothing == {}
