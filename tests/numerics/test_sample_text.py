"""The sample text is shipped, varied, and cut into segments that lose nothing."""

from __future__ import annotations

import logging

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lepton_compile.numerics.sample_text import (
    calibration_segments,
    paragraphs,
    passages,
    random_segments,
    segments,
    special_prefix,
    token_ids,
    whole_texts,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One token per word or mark, with a begin token, as decoders have."""
    split = pre_tokenizers.Whitespace()
    words = {word for text in passages().values() for word, _ in split.pre_tokenize_str(text)}
    vocabulary = {"<s>": 0, "<unk>": 1} | {word: n for n, word in enumerate(sorted(words), 2)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def test_there_are_several_styles() -> None:
    assert set(passages()) >= {"narrative", "instructions", "code", "numbers", "dialogue"}
    assert all(len(text) > 500 for text in passages().values())


def test_what_weights_are_fitted_to_is_not_what_they_are_judged_by(tokenizer: Tokenizer) -> None:
    fitted = " ".join(passages("calibration").values())
    assert len(fitted) > 8000
    lines = {line.strip() for text in passages().values() for line in text.split(". ")}
    assert not [line for line in lines if len(line) > 24 and line in fitted]
    parts = calibration_segments(tokenizer, 64)
    assert max(map(len, parts)) <= 64
    counted = sum(len(part) - 1 for part in parts)
    assert counted == len(token_ids(tokenizer, fitted, special=False))


def test_prefix_is_what_the_tokenizer_adds(tokenizer: Tokenizer) -> None:
    assert special_prefix(tokenizer) == [0]


def test_segments_hold_the_whole_text(tokenizer: Tokenizer) -> None:
    parts = segments(tokenizer, 100)
    assert max(map(len, parts)) <= 100
    assert all(part[0] == 0 for part in parts)
    counted = sum(len(part) - 1 for part in parts)
    texts = passages().values()
    assert counted == sum(len(token_ids(tokenizer, text, special=False)) for text in texts)


def test_the_first_segments_show_every_style(tokenizer: Tokenizer) -> None:
    first = segments(tokenizer, 100)[: len(passages())]
    starts = [token_ids(tokenizer, text, special=False)[:20] for text in passages().values()]
    assert [part[1:21] for part in first] == starts


def test_another_text_takes_the_place_of_the_sample(tokenizer: Tokenizer) -> None:
    assert segments(tokenizer, 10, text="the wall") == [
        token_ids(tokenizer, "the wall", special=True)
    ]
    assert paragraphs("one\n\n\n\ntwo\n") == ["one", "two"]


def test_paragraphs_have_different_lengths() -> None:
    lengths = [len(part) for part in paragraphs()]
    assert len(lengths) > 20
    assert min(lengths) * 5 < max(lengths)


def test_random_segments_repeat() -> None:
    assert random_segments(10, [3, 4]) == random_segments(10, [3, 4])
    assert [len(part) for part in random_segments(10, [3, 4])] == [3, 4]


def test_nothing_warns_of_a_text_that_is_cut_anyway(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import PreTrainedTokenizerFast

    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=8)
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        assert max(map(len, segments(whole, 8))) == 8
        assert caplog.messages == []
        whole.encode("a " * 9)
        assert "longer than the specified maximum" in caplog.text  # what would have been said
    finally:
        logger.removeHandler(caplog.handler)


def test_a_text_that_is_cut_ends_as_any_other(tokenizer: Tokenizer) -> None:
    closed = Tokenizer.from_str(tokenizer.to_str())
    closed.post_processor = processors.TemplateProcessing(
        single="<s> $A <s> <unk>", special_tokens=[("<s>", 0), ("<unk>", 1)]
    )
    text = paragraphs()[0]
    [ids] = whole_texts(closed, [text], 10)
    assert ids == [0, *token_ids(closed, text, special=False)[:7], 0, 1]
    [whole] = whole_texts(closed, [text], 1000)
    assert whole == token_ids(closed, text, special=True)
    [open_end] = whole_texts(tokenizer, [text], 10)
    assert open_end == [0, *token_ids(tokenizer, text, special=False)[:9]]
