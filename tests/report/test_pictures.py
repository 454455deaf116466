"""How many tokens a picture takes is told in words."""

from __future__ import annotations

import pytest

from lepton_compile.report.pictures import picture_words, pictures_in, sized_words


@pytest.mark.parametrize(
    ("tokens", "most", "longest", "words"),
    [
        (256, 1, 4096, "256 of 4,096 tokens"),
        (64, 16, 4096, "up to 17 tiles of 64 tokens: 1,088 of 4,096, and marks between them"),
        (64, 16, 1089, "up to 17 tiles of 64 tokens: 1,088 of 1,089, and marks between them"),
        (64, 16, 1088, "up to 17 tiles of 64 tokens: 1,088 of 1,088, the largest do not fit"),
    ],
)
def test_words_for_a_picture(tokens: int, most: int, longest: int, words: str) -> None:
    assert picture_words(tokens, most, longest) == words


def test_a_manifest_says_it_of_models_that_see_and_write() -> None:
    pictures = {"ranges": {"sequence": [1, 320]}, "generation": {"pictures": {"tokens": 4}}}
    assert pictures_in({**pictures, "image": None}) == "4 of 320 tokens"
    image = {"tiles": {"kind": "longest-edge", "most": 4, "edge": 64}}
    assert pictures_in({**pictures, "image": image}) == picture_words(4, 4, 320)
    sized = {"placeholder": 9, "grid": {"patch": 16, "merge": 2}}
    told = {**pictures, "generation": {"pictures": sized}}
    assert pictures_in({**told, "image": None}) == "by its size"
    words = "by its size, up to 240 of 320 tokens"
    assert pictures_in({**told, "image": {"most": 240 * 32**2}}) == sized_words(240, 320) == words
    for other in ({"generation": None}, {"generation": {"eos": [1]}}, {"image": image}):
        assert not pictures_in(other)
