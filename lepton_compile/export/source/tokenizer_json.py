"""What is wrong with a tokenizer.json, in words that name the entry.

The library is given all of it but the vocabulary, whose entries are looked at here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from lepton_compile.collection import uncollected
from lepton_compile.errors import SourceError, is_failure
from lepton_compile.export.source.objects import read_object

__all__ = ["fault_in"]

IDS = 2**32  # below which the library counts


def fault_in(file: Path) -> str | None:
    """In words; None where nothing is seen to be wrong."""
    from tokenizers import Tokenizer

    try:
        with uncollected():
            found = read_object(file)
        Tokenizer.from_str(json.dumps(_without_words(found)))
    except BaseException as error:
        if not is_failure(error):
            raise
        return (error.found or error.message) if isinstance(error, SourceError) else str(error)
    if not isinstance(tokens := found.get("added_tokens"), list):  # transformers goes through them
        return f"added_tokens: {tokens!r:.60}"
    return next(_faults(found["model"]), None)


def _without_words(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same with an empty vocabulary; of one in a list as much as has the unknown word."""
    model = found.get("model")
    if not isinstance(model, dict):
        return dict(found)
    model = dict(model)
    words, unknown = model.get("vocab"), model.get("unk_id")
    if isinstance(words, dict):
        model["vocab"] = {}
        if isinstance(model.get("merges"), list):
            model["merges"] = []
    elif isinstance(words, list):
        model["vocab"] = words[: unknown + 1 if type(unknown) is int and unknown >= 0 else 1]
    return {**found, "model": model}


def _faults(model: Mapping[str, Any]) -> Iterator[str]:
    words = model["vocab"]
    if isinstance(words, list):
        yield from (f"model.vocab: {each!r:.60}" for each in words if not _is_scored(each))
        return
    for word, number in words.items():
        if type(number) is not int or not 0 <= number < IDS:
            yield f"model.vocab: {word!r:.60} is {number!r:.60}"
    pairs = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or ()]
    if pairs[:1] and isinstance(model["merges"][0], str) and pairs[0][0].startswith("#version"):
        del pairs[0]
    cut = len(model.get("continuing_subword_prefix") or "")
    try:
        # What is merged, and what comes of it: the second without the sign that a word goes on.
        needed = {a + b[cut:] for a, b in pairs}.union(chain.from_iterable(pairs))
    except (TypeError, ValueError):
        yield from (f"model.merges: {pair!r:.60}" for pair in pairs if not _is_pair(pair))
        return
    if lost := needed - words.keys():
        yield f"model.merges: {min(lost)!r:.60} is not in the vocabulary"


def _is_scored(found: Any) -> bool:
    kinds = [*map(type, found)] if isinstance(found, list) else []
    return kinds in ([str, float], [str, int])


def _is_pair(found: Any) -> bool:
    return isinstance(found, list) and [*map(type, found)] == [str, str]
