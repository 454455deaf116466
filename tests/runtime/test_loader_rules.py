"""Tokens that may not follow are those that transformers takes out, rule by rule and together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
)

from lepton_compile.runtime.loader_rules import logarithms, rule_out

VOCABULARY = 5  # few, so that tokens come again
TOKENS = st.integers(0, VOCABULARY - 1)
ENDS = st.lists(TOKENS, min_size=1, max_size=2, unique=True)
RULES = {
    "apart": st.integers(0, 3),
    "source_apart": st.integers(0, 3),
    "least": st.integers(0, 12),
    "least_new": st.integers(0, 6),
    "words": st.lists(st.lists(TOKENS, min_size=1, max_size=3), max_size=2, unique_by=tuple),
    "last": st.just([]) | ENDS,
}


class Written(list[int]):
    """What an answer begins with, of a model that reads ``source`` first."""

    source: list[int]


def _processors(
    rules: dict[str, Any], ends: list[int], source: list[int], prompt: int, limit: int
) -> LogitsProcessorList:
    """Those that transformers has for the rules, in its order."""
    made = LogitsProcessorList()
    if size := rules["source_apart"]:
        made.append(EncoderNoRepeatNGramLogitsProcessor(size, torch.tensor([source])))
    if size := rules["apart"]:
        made.append(NoRepeatNGramLogitsProcessor(size))
    if words := rules["words"]:
        made.append(NoBadWordsLogitsProcessor(words))
    if least := rules["least"]:
        made.append(MinLengthLogitsProcessor(least, torch.tensor(ends)))
    if least := rules["least_new"]:
        made.append(MinNewTokensLengthLogitsProcessor(prompt, least, torch.tensor(ends)))
    if last := rules["last"]:
        made.append(ForcedEOSTokenLogitsProcessor(prompt + limit, torch.tensor(last)))
    return made


@given(
    rules=st.fixed_dictionaries({name: st.none() | kind for name, kind in RULES.items()}),
    ends=ENDS,
    source=st.lists(TOKENS, min_size=1, max_size=6),
    prompt=st.lists(TOKENS, min_size=3, max_size=8),
    new=st.lists(TOKENS, max_size=6),
    pair=st.booleans(),
    more=st.integers(1, 3),
)
@settings(max_examples=200)
def test_what_may_follow_is_what_transformers_leaves(
    rules: dict[str, Any],
    ends: list[int],
    source: list[int],
    prompt: list[int],
    new: list[int],
    pair: bool,
    more: int,
) -> None:
    ids: list[int] = prompt
    if pair:
        ids = Written(prompt)
        ids.source = source
    limit = len(new) + more
    scores = np.arange(1, VOCABULARY + 1, dtype=np.float32)
    seen = torch.tensor([prompt + new])
    wanted = _processors(rules, ends, source if pair else prompt, len(prompt), limit)(
        seen, torch.from_numpy(scores.copy())[None]
    )
    told = {"rules": {**rules, "words": rules["words"] or [], "last": rules["last"] or []}}
    rule_out({**told, "eos": ends}, scores, SimpleNamespace(ids=ids, limit=limit), new)
    np.testing.assert_array_equal(scores, wanted[0].numpy())


@given(st.lists(st.floats(-90, 90, width=32), min_size=2, max_size=6))
def test_logarithms_are_those_of_torch(scores: list[float]) -> None:
    rows = np.array([scores, scores[::-1]], np.float32)
    expected = torch.log_softmax(torch.from_numpy(rows), -1).numpy()
    np.testing.assert_allclose(logarithms(rows), expected, atol=1e-5)
