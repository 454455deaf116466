"""What the classes of a classifier are called, and what their logits become."""

from __future__ import annotations

from typing import Any

__all__ = ["labels_of", "score_of"]

# Names of torch's modules, as sentence-transformers writes them for rerankers.
_FUNCTIONS = {"Identity": "none", "Sigmoid": "sigmoid"}
_PROBLEMS = {"regression": "none", "multi_label_classification": "sigmoid"}


def labels_of(config: Any) -> dict[str, str] | None:
    """Names by class number; None where the model has none."""
    labels = getattr(config, "id2label", None)
    return {str(number): str(name) for number, name in labels.items()} if labels else None


def score_of(config: Any, function: str | None = None) -> str:
    """``softmax``, ``sigmoid`` or ``none`` of a text's logits: what transformers' pipeline makes of
    them, and of a single one what sentence-transformers does, where the model was trained with it.

    Args:
        function: what stands behind the model, where its configuration does not name it.
    """
    labels = getattr(config, "num_labels", 2)
    own = getattr(config, "sentence_transformers", None)
    named = function or (own.get("activation_fn") if isinstance(own, dict) else None)
    named = named or getattr(config, "sbert_ce_default_activation_function", None)
    if labels == 1 and (function := _FUNCTIONS.get(str(named).rpartition(".")[2])):
        return function
    problem = getattr(config, "problem_type", None)
    return _PROBLEMS.get(str(problem), "sigmoid" if labels == 1 else "softmax")
