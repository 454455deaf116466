"""Which tokens an answer may go on with, by what it has so far.

What transformers applies of a model's generation config: ``no_repeat_ngram_size`` (``apart``),
``encoder_no_repeat_ngram_size`` (``source_apart``), ``bad_words_ids`` (``words``),
``min_length`` (``least``), which counts what an answer begins with, or the prompt of a decoder,
``min_new_tokens`` (``least_new``), which does not, ``forced_eos_token_id`` (``last``); of beams
also ``early_stopping`` (``early``) and ``renormalize_logits`` (``renormalize``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import check_form, refuse
from lepton_compile.runtime.loader_ruled import NO_TOKENS

__all__ = ["check_rules", "logarithms", "rule_out"]

COUNTS = {"apart?": int, "source_apart?": int, "least?": int, "least_new?": int}
RULES = {**COUNTS, "words?": [[int]], "last?": [int], "early?": bool, "renormalize?": bool}


def check_rules(told: dict[str, Any]) -> None:
    """Refuse rules of tokens that there are not."""
    check_form(told, {"eos?": [int], "rules": RULES}, "manifest.generation")
    rules = told["rules"]
    words = rules["words"] = rules["words"] or []
    rules["last"] = [*map(int, rules["last"] or ())]
    told["eos"] = [*map(int, told["eos"] or ())]
    tokens = {*told["eos"], *rules["last"], *(token for word in words for token in word)}
    refuse(max(tokens, default=0) >= told["vocabulary"] or [] in words, NO_TOKENS)


def rule_out(told: Mapping[str, Any], scores: np.ndarray, row: Any, new: list[int]) -> None:
    """Overwrite the ``scores`` (vocabulary) of tokens that may not follow ``new`` ones of a row."""
    rules, seen = told["rules"], row.ids + new
    if len(seen) < (rules["least"] or 0) or len(new) < (rules["least_new"] or 0):
        scores[told["eos"]] = -np.inf
    for name, text in (("apart", seen), ("source_apart", getattr(row.ids, "source", row.ids))):
        scores[_again(seen, rules[name] or 0, text)] = -np.inf
    for *before, token in rules["words"]:
        if seen[len(seen) - len(before) :] == before:
            scores[token] = -np.inf
    if rules["last"] and len(new) + 1 == row.limit:
        scores[:] = -np.inf
        scores[rules["last"]] = 0.0


def logarithms(scores: np.ndarray) -> np.ndarray:
    """Of the chances that ``scores`` (..., vocabulary) stand for."""
    shifted = scores - scores.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _again(seen: list[int], size: int, text: list[int]) -> list[int]:
    """Tokens behind which the last ``size`` of ``seen`` would stand in ``text``, too."""
    before = size - 1
    if not 0 <= before <= len(seen):
        return []
    last = seen[len(seen) - before :]
    ends = range(before, len(text))
    return [text[n] for n in ends if text[n - before : n] == last]
