"""What a folder of sentence-transformers says of sparse embeddings: a weight for each word.

SPLADE (Formal et al., 2021, arXiv:2107.05720 and 2109.10086) pools what a masked language model
would put at each token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.sentence import ALONE, CORRECT, SETTINGS, is_sentence_model, of_texts
from lepton_compile.export.source import Source
from lepton_compile.export.source.modules import MODULES, modules_of
from lepton_compile.export.source.objects import read_object

__all__ = ["is_sparse_model", "sparse_pooling"]

STRATEGIES = ("max", "sum")
# What is done to a score: how often the logarithm of one more than it is taken.
LOGARITHMS = {"relu": 1, "log1p_relu": 2}
_OF_WORDS = ("SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding")


def is_sparse_model(source: Source) -> bool:
    """Whether it is a sparse encoder of sentence-transformers, whatever its modules are."""
    if not is_sentence_model(source):
        return False
    if read_object(source.path / SETTINGS).get("model_type") == "SparseEncoder":
        return True
    return any(kind in _OF_WORDS for kind, _ in modules_of(source.path))


def sparse_pooling(source: Source) -> dict[str, Any] | None:
    """How a sparse encoder weighs words; None for any other model.

    Returns:
        ``pooling`` (max or sum, over the tokens of a text) and ``logarithms`` (1 or 2).

    Raises:
        SourceError: modules or settings that cannot be put into the graph.
    """
    if not is_sparse_model(source):
        return None
    modules = modules_of(source.path)
    kinds = [kind for kind, _ in modules]
    if kinds not in (["MLMTransformer", "SpladePooling"], ["Transformer", "SpladePooling"]):
        raise SourceError(
            "The sparse embedding has modules that cannot be compiled.",
            where=str(source.path / MODULES),
            found=", ".join(kinds),
            available=["a masked language model, then SpladePooling"],
            hint=_other_ways(kinds),
        )
    if kinds[0] == "Transformer":
        _check_scores(source)
    return _settings(modules[1][1] / "config.json")


def _other_ways(kinds: list[str]) -> str:
    if "Router" in kinds:
        return (
            "Its queries are looked up in a table, for which no engine is needed: compile the "
            "folder of the model that reads documents, with task: sparse-embedding."
        )
    return ALONE


def _check_scores(source: Source) -> None:
    """A pooling of hidden states would pass for one of words."""
    task = of_texts(source).get("transformer_task")
    if task != "fill-mask":
        raise SourceError(
            "The sparse embedding is not made from the scores of a masked language model.",
            where=str(source.path),
            found=f"transformer_task: {task}",
            available=["fill-mask"],
            hint=CORRECT,
        )


def _settings(file: Path) -> dict[str, Any]:
    found = read_object(file)
    strategy = found.get("pooling_strategy", "max")
    function = found.get("activation_function", "relu")
    if strategy in STRATEGIES and function in LOGARITHMS:
        return {"pooling": strategy, "logarithms": LOGARITHMS[function]}
    raise SourceError(
        "This pooling of term scores cannot be compiled.",
        where=str(file),
        found=f"pooling_strategy: {strategy}, activation_function: {function}",
        available=[f"{s}, {f}" for s in STRATEGIES for f in LOGARITHMS],
        hint="Correct it, or give a recipe of your own with pooling: max or sum.",
    )
