"""Task and pooling of a build, from the recipe or from what the model says of itself."""

from __future__ import annotations

from typing import Any, TypedDict

from lepton_compile.errors import RecipeError
from lepton_compile.export import Pooling, Source
from lepton_compile.export.task_names import infer_task
from lepton_compile.export.text_tower import tower_of
from lepton_compile.recipe import Recipe

__all__ = ["Lengths", "config_of", "lengths_of", "pooling_of", "task_of"]


def config_of(source: Source) -> Any:
    """The model's configuration; an ONNX file comes without one."""
    return None if source.kind == "onnx" else source.config()


class Lengths(TypedDict):
    """The longest texts that a capture is asked for; None where the model's own limit counts."""

    length: int | None
    source_length: int | None


def lengths_of(recipe: Recipe) -> Lengths:
    """The longest texts that a recipe asks for."""
    written, read = recipe.shapes.sequence, recipe.shapes.source
    return {"length": written and written[1], "source_length": read and read[1]}


def task_of(source: Source) -> str:
    """The task where the recipe names none; a sentence-transformers folder is for embeddings."""
    from lepton_compile.export.multi_vector import is_multi_vector_model
    from lepton_compile.export.sentence import is_sentence_model
    from lepton_compile.export.sparse import is_sparse_model

    if is_sparse_model(source):
        return "sparse-embedding"
    if is_multi_vector_model(source):
        return "multi-vector-embedding"
    if is_sentence_model(source):
        return "feature-extraction"
    return infer_task(source.architecture, pair=bool(source.config().is_encoder_decoder))


def pooling_of(recipe: Recipe, source: Source, task: str) -> Pooling | None:
    """The sentence embedding the recipe asks for, ``auto`` following the model's own files.

    Raises:
        RecipeError: one of unit length is asked for, and nothing says how tokens become one.
    """
    from lepton_compile.export.sentence import pooling

    if task == "sparse-embedding":
        return _of_words(recipe, source)
    if task == "multi-vector-embedding":
        return _of_tokens(recipe, source)
    if task == "image-feature-extraction" and recipe.pooling != "none":
        asked = "own" if recipe.pooling == "auto" else recipe.pooling
        return Pooling(asked, bool(recipe.normalize))
    if task != "feature-extraction" or recipe.pooling == "none":
        return None
    own = pooling(source) or ({"pooling": "own"} if tower_of(source.config()) else {})
    kind = recipe.pooling if recipe.pooling != "auto" else own.get("pooling")
    if kind is None and recipe.normalize:
        raise RecipeError(
            "there is no sentence embedding to normalize: the model's files name no pooling",
            where=recipe.place("normalize"),
            found="normalize: true, pooling: auto",
            available=["pooling: mean", "pooling: cls", "pooling: max", "pooling: lasttoken"],
            hint="choose the pooling that the model was trained with, or leave normalize out",
        )
    if kind is None:
        return None
    normalize = recipe.normalize
    if normalize is None:
        normalize = bool(own.get("normalize"))
    return Pooling(str(kind), normalize, own.get("dense", ()))


def _of_words(recipe: Recipe, source: Source) -> Pooling:
    """That of a sparse embedding: largest scores, where neither recipe nor model says otherwise."""
    from lepton_compile.export.sparse import sparse_pooling

    own = (sparse_pooling(source) if recipe.pooling == "auto" else None) or {}
    kind = "max" if recipe.pooling == "auto" else recipe.pooling
    return Pooling(own.get("pooling", kind), False, logarithms=own.get("logarithms", 1))


def _of_tokens(recipe: Recipe, source: Source) -> Pooling:
    """All tokens, for late interaction.

    Raises:
        RecipeError: the model's files do not say how queries and documents are read.
    """
    from lepton_compile.export.multi_vector import token_vectors

    own = token_vectors(source)
    if own is None:
        raise RecipeError(
            "the model's files do not say how queries and documents are read",
            where=recipe.place("task"),
            found="multi-vector-embedding",
            available=["a folder that sentence-transformers or PyLate saved"],
            hint="compile its hidden states, with task: feature-extraction and pooling: none",
        )
    return Pooling("tokens", own["normalize"], own["dense"])
