"""The longest sequence that a model is compiled for."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from lepton_compile.errors import ExportError, RecipeError
from lepton_compile.export.lengths import DEFAULT_LENGTH, longest_sequence
from lepton_compile.export.trace import EXAMPLE_SIZES

TRACED = EXAMPLE_SIZES["sequence"]


def _llama(positions: int) -> Any:
    return transformers.LlamaConfig(max_position_embeddings=positions)


def _xlnet() -> Any:
    return transformers.XLNetConfig()  # of any length: it says -1


@pytest.mark.parametrize(
    ("config", "wanted", "longest"),
    [
        (_llama(512), None, 512),
        (_llama(DEFAULT_LENGTH + 1), None, DEFAULT_LENGTH),
        (_llama(DEFAULT_LENGTH + 1), DEFAULT_LENGTH + 1, DEFAULT_LENGTH + 1),
        (_llama(TRACED), None, TRACED),
        (_llama(512), TRACED, TRACED),
        (_llama(512), 512, 512),
        (_xlnet(), None, DEFAULT_LENGTH),
        (_llama(0), None, DEFAULT_LENGTH),
        (_xlnet(), 2 * DEFAULT_LENGTH, 2 * DEFAULT_LENGTH),
        (transformers.GPT2Config(n_positions=300), None, 300),
        (transformers.RobertaConfig(max_position_embeddings=514), None, 512),
        (transformers.BertConfig(max_position_embeddings=514), None, 514),
    ],
)
def test_a_wish_within_the_limit(config: Any, wanted: int | None, longest: int) -> None:
    assert longest_sequence(config, wanted) == longest


@pytest.mark.parametrize(
    ("positions", "wanted", "error", "words"),
    [
        (TRACED - 1, None, ExportError, "takes fewer tokens than a model is traced with"),
        (1, None, ExportError, "takes fewer tokens than a model is traced with"),
        (512, TRACED - 1, RecipeError, "shorter than what a model is traced with"),
        (512, 513, RecipeError, "longer sequences than the model can take"),
    ],
)
def test_refuses(positions: int, wanted: int | None, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        longest_sequence(_llama(positions), wanted)
