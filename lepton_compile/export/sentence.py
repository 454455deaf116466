"""What a folder of sentence-transformers says of embeddings: pooling, prompts, cut texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.dense import UNPOOLED, read_dense
from lepton_compile.export.source import Source
from lepton_compile.export.source.modules import MODULES, modules_of
from lepton_compile.export.source.objects import read_object

__all__ = [
    "ALONE",
    "CORRECT",
    "SETTINGS",
    "TOKENIZER_SETTINGS",
    "is_sentence_model",
    "lowers_case",
    "of_texts",
    "pooling",
    "prompts",
    "score_function",
    "text_limit",
]

POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
}
SETTINGS, TOKENIZER_SETTINGS = "config_sentence_transformers.json", "tokenizer_config.json"
KINDS = tuple(POOLINGS.values())
# What else can be done with a model whose embedding cannot be compiled.
ALONE = "Compile the encoder alone, with task: feature-extraction and pooling: none."
CORRECT = (
    "Correct it, or compile the encoder alone, with task: feature-extraction and pooling: none."
)
NO_LIMIT = 1_000_000_000
_ORDER = re.compile(r"Transformer Pooling( Dense)*( Normalize)?")


def is_sentence_model(source: Source) -> bool:
    """Whether it is a folder of sentence-transformers that embeds, whatever its modules are: its
    rerankers are classifiers."""
    if source.kind != "folder" or not (source.path / MODULES).is_file():
        return False
    return read_object(source.path / SETTINGS).get("model_type") != "CrossEncoder"


def score_function(source: Source) -> str | None:
    """Name of the module that sentence-transformers puts behind a reranker; None where it is none
    of its, or keeps that in config.json."""
    found = read_object(source.path / SETTINGS).get("activation_fn")
    return str(found) if source.kind == "folder" and found else None


def pooling(source: Source) -> dict[str, Any] | None:
    """How a sentence-transformers folder makes its embedding; None for any other model.

    Returns:
        ``pooling`` (mean, cls, max or lasttoken), ``dense`` (tuple of ``Dense``) and ``normalize``
        (bool).

    Raises:
        SourceError: modules, a pooling or prompts that cannot be put into the graph.
    """
    if not is_sentence_model(source):
        return None
    prompts(source)  # refused now, not when all the rest is built
    modules = modules_of(source.path)
    kinds, folders = [kind for kind, _ in modules], [folder for _, folder in modules]
    if not _ORDER.fullmatch(" ".join(kinds)):
        raise SourceError(
            "The sentence embedding has modules that cannot be compiled.",
            where=str(source.path / MODULES),
            found=", ".join(kinds),
            available=["Transformer, Pooling, any number of Dense, Normalize"],
            hint=UNPOOLED,
        )
    dense = [at for kind, at in zip(kinds, folders, strict=True) if kind == "Dense"]
    return {
        "pooling": _pooling_kind(folders[1] / "config.json"),
        "dense": tuple(read_dense(at) for at in dense),
        "normalize": kinds[-1] == "Normalize",
    }


def text_limit(source: Source) -> int | None:
    """Tokens at which sentence-transformers cuts texts: its own setting, else the tokenizer's.

    Returns:
        None for any other model, and where nothing but what the model can take limits a text.
    """
    if not is_sentence_model(source):
        return None
    found = of_texts(source).get("max_seq_length")
    if found is None:
        found = read_object(_transformer(source) / TOKENIZER_SETTINGS).get("model_max_length")
    # A tokenizer without a limit says so by a number that no text has.
    return int(found) if found is not None and found < NO_LIMIT else None


def lowers_case(source: Source) -> bool:
    """Whether texts are put in lower case, whatever the tokenizer does."""
    return is_sentence_model(source) and of_texts(source).get("do_lower_case") is True


def prompts(source: Source) -> tuple[dict[str, str], str | None]:
    """What is put in front of texts, by name (query, document ..), and the name of the one that is
    put there where nothing else is said.

    Raises:
        SourceError: they are no texts, or the default is none of them; it would be left out of the
            pooling, which the graph cannot.
    """
    if not is_sentence_model(source):
        return {}, None
    file = source.path / SETTINGS
    settings = read_object(file)
    found, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    named = isinstance(found, dict) and all(isinstance(t, str | None) for t in found.values())
    if not named or (default is not None and default not in found):
        raise SourceError(
            "The prompts of a sentence-transformers model are not texts by name.",
            where=str(file),
            found=f"prompts: {found}, default_prompt_name: {default}",
            hint="Correct them, or set pooling: none to compile the encoder alone.",
        )
    if _includes_prompts(source):
        return {name: text or "" for name, text in found.items()}, default
    if default is not None and found[default]:
        raise SourceError(
            "The prompt of this model is left out of its pooling, which cannot be compiled.",
            where=str(file),
            found=f"default_prompt_name: {default}, include_prompt: false",
            hint=UNPOOLED,
        )
    return {}, None


def _includes_prompts(source: Source) -> bool:
    places = [at for kind, at in modules_of(source.path) if kind == "Pooling"]
    return all(read_object(at / "config.json").get("include_prompt", True) for at in places)


def _transformer(source: Source) -> Path:
    places = (at for kind, at in modules_of(source.path) if kind == "Transformer")
    return next(places, source.path)


def of_texts(source: Source) -> dict[str, Any]:
    """Settings of the module that reads texts."""
    folder = _transformer(source)
    own = next(iter(sorted(folder.glob("sentence_*_config.json"))), folder / "none")
    return read_object(own)


def _pooling_kind(file: Path) -> str:
    if not file.is_file():
        raise SourceError(
            "The settings of the pooling are missing.",
            where=str(file),
            hint="Download the folder again, or set pooling: to mean, cls, max, lasttoken or none.",
        )
    settings = read_object(file)
    # Newer files name the mode, or several; older ones have a switch for each.
    found = settings.get("pooling_mode")
    if found is None:
        found = [POOLINGS.get(key, key) for key, on in settings.items() if on is True]
        found = [kind for kind in found if kind in KINDS or kind.startswith("pooling_mode_")]
    names = [found] if isinstance(found, str) else [str(name) for name in found]
    if len(names) == 1 and names[0] in KINDS:
        return names[0]
    raise SourceError(
        "This pooling cannot be compiled.",
        where=str(file),
        found=", ".join(names) or "none",
        available=KINDS,
        hint="Set pooling: to one of these, or to none.",
    )
