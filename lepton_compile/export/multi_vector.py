"""What a folder of sentence-transformers says of late interaction: a vector for each token.

ColBERT (Khattab and Zaharia, 2020, arXiv:2004.12832) scores a document for a query by the sum, over
the query's tokens, of the largest product with one of the document's. What PyLate saved says the
same in other words.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.dense import TOKENS, read_dense
from lepton_compile.export.sentence import (
    ALONE,
    CORRECT,
    SETTINGS,
    TOKENIZER_SETTINGS,
    is_sentence_model,
    of_texts,
    text_limit,
)
from lepton_compile.export.source import Source
from lepton_compile.export.source.modules import MODULES, modules_of
from lepton_compile.export.source.objects import read_object

__all__ = [
    "Expansion",
    "Role",
    "is_multi_vector_model",
    "roles",
    "roles_entry",
    "token_vectors",
]

PYLATE, OWN = "ColBERT", "MultiVectorEncoder"
MASK = "MultiVectorMask"
QUERY, DOCUMENT = "query", "document"
_ORDER = re.compile(rf"Transformer( Dense)*( Normalize)?( {MASK})?( Normalize)?")
# By any of these a file is PyLate's, and expands queries unless it says that it does not.
_MARKS = (
    *("query_length", "document_length", "query_expansion", "do_query_expansion"),
    *("attend_to_expansion_tokens", "query_prefix", "document_prefix", "skiplist_words"),
)
_LENGTH = 32  # of queries, where it does not say


@dataclass(frozen=True)
class Expansion:
    """Tokens that fill up a short query and count like its own. With ``fixed`` every query has
    ``length`` tokens, else at least as many; the query's own see them where ``attend``."""

    token: str
    length: int
    attend: bool
    fixed: bool


@dataclass(frozen=True)
class Role:
    """How a text is read as a query, or as a document.

    Attributes:
        prompt: what goes in front of it.
        max_tokens: where it is cut; None where nothing but the model limits it.
        skipped: tokens whose vectors do not count.
        expansion: of queries, or None.
    """

    prompt: str
    max_tokens: int | None
    skipped: tuple[str, ...]
    expansion: Expansion | None = None


def is_multi_vector_model(source: Source) -> bool:
    """Whether it is a model of sentence-transformers, or of PyLate, for late interaction."""
    if not is_sentence_model(source):
        return False
    if read_object(source.path / SETTINGS).get("model_type") in (PYLATE, OWN):
        return True
    return any(kind == MASK for kind, _ in modules_of(source.path))


def token_vectors(source: Source) -> dict[str, Any] | None:
    """What stands behind the encoder; None for any other model.

    Returns:
        ``dense`` (tuple of ``Dense``) and ``normalize`` (bool), for each token.

    Raises:
        SourceError: modules or settings that cannot be put into the graph or the loader.
    """
    if not is_multi_vector_model(source):
        return None
    roles(source)  # refused now, not when all the rest is built
    modules = modules_of(source.path)
    kinds = [kind for kind, _ in modules]
    if not _ORDER.fullmatch(" ".join(kinds)):
        raise SourceError(
            "The vectors of tokens have modules that cannot be compiled.",
            where=str(source.path / MODULES),
            found=", ".join(kinds),
            available=[f"Transformer, any number of Dense, Normalize, {MASK}"],
            hint=ALONE,
        )
    for at in (folder for kind, folder in modules if kind == "Normalize"):
        _check_normalize(at / "config.json")
    return {
        "dense": tuple(read_dense(at, TOKENS) for kind, at in modules if kind == "Dense"),
        "normalize": "Normalize" in kinds or _of_pylate(read_object(source.path / SETTINGS)),
    }


def roles(source: Source) -> dict[str, Role]:
    """How queries and documents are read, by ``query`` and ``document``.

    Raises:
        SourceError: their settings are none.
    """
    settings, own = read_object(source.path / SETTINGS), of_texts(source)
    try:
        said = {**_of_old(settings), **{k: v for k, v in own.items() if v is not None}}
        expansion = _expansion(said.get("query_expansion"), source)
        query = _limit(said.get("query_length"), source)
        if expansion is not None:
            query = max(expansion.length, query or 0)
            query = expansion.length if expansion.fixed else query
        skipped = _skipped(source, settings)
        prompts = {**(settings.get("prompts") or {})}
        for role, older in ((QUERY, "query_prefix"), (DOCUMENT, "document_prefix")):
            lead, text = str(settings.get(older) or ""), str(prompts.get(role) or "")
            prompts[role] = lead + text.removeprefix(lead)
        return {
            QUERY: Role(prompts[QUERY], query, skipped.get(QUERY, ()), expansion),
            DOCUMENT: Role(
                prompts[DOCUMENT],
                _limit(said.get("document_length"), source),
                skipped.get(DOCUMENT, ()),
            ),
        }
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise SourceError(
            "How queries and documents are read cannot be understood.",
            where=str(source.path / SETTINGS),
            found=f"{type(error).__name__}: {error}",
            hint=CORRECT,
        ) from error


def roles_entry(source: Source) -> dict[str, Any]:
    """What the manifest says of roles."""
    return {name: asdict(role) for name, role in roles(source).items()}


def _of_pylate(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get("model_type") == PYLATE)


def _of_old(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What PyLate says beside the prompts, as the module that reads texts says it today."""
    if not any(mark in settings for mark in _MARKS):
        return {}
    lengths = ("query_length", "document_length")
    said = {key: settings[key] for key in lengths if settings.get(key) is not None}
    if "query_expansion" in settings:
        return said | {"query_expansion": settings["query_expansion"]}
    if settings.get("do_query_expansion") is False:
        return said
    attend = bool(settings.get("attend_to_expansion_tokens"))
    length = said.pop("query_length", _LENGTH)
    return said | {"query_expansion": {"strategy": "fixed", "attend": attend, "length": length}}


def _expansion(found: Mapping[str, Any] | None, source: Source) -> Expansion | None:
    if found is None:
        return None
    strategy, length = found["strategy"], found["length"]
    if strategy not in ("fixed", "min"):
        raise ValueError(f"query_expansion has the strategy {strategy!r}, not fixed or min")
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"query_expansion has the length {length!r}")
    token = found.get("token") or _filler(source)
    return Expansion(str(token), length, bool(found.get("attend")), strategy == "fixed")


def _filler(source: Source) -> str:
    """The mask of an encoder, the last token of a decoder."""
    settings = read_object(source.path / TOKENIZER_SETTINGS)
    found = settings.get("mask_token") or settings.get("eos_token")
    token = found.get("content") if isinstance(found, dict) else found
    if not token:
        raise ValueError("query_expansion needs a token, and the tokenizer has no mask")
    return str(token)


def _limit(said: int | None, source: Source) -> int | None:
    if said is None:
        return text_limit(source)
    if not isinstance(said, int) or said < 1:
        raise ValueError(f"a text of {said!r} tokens")
    return said


def _skipped(source: Source, settings: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Tokens that do not count, by role."""
    folders = [folder for kind, folder in modules_of(source.path) if kind == MASK]
    said = read_object(folders[0] / "config.json") if folders else {}
    if said.get("keep_only_token_ids"):
        raise ValueError("keep_only_token_ids is for images")
    words = said.get("skiplist_words")
    if not folders and _of_pylate(settings):
        words = settings.get("skiplist_words", [*string.punctuation])
    given = said.get("skiplist_tasks") or [DOCUMENT]
    tasks = [given] if isinstance(given, str) else given
    return {str(task): tuple(map(str, words or ())) for task in tasks}


def _check_normalize(file: Path) -> None:
    place = read_object(file).get("module_input_name", "sentence_embedding")
    if place != TOKENS:
        raise SourceError(
            "A Normalize module does what cannot be compiled.",
            where=str(file),
            found=f"module_input_name: {place}",
            available=[f"module_input_name: {TOKENS}"],
            hint=ALONE,
        )
