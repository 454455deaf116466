"""Texts on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lepton_compile.runtime.loader_guard import refuse

__all__ = ["about"]


def about(model: Any, text: list[str], question: Any = None) -> Iterator[str]:
    """What the model's task makes of each text, as JSON."""
    if model.task == "feature-extraction":
        found: Any = ({"embedding": row} for row in model.embed(text).tolist())
    if model.task == "sparse-embedding":
        found = ({"words": words} for words in model.words(text))
    if model.task == "multi-vector-embedding":
        found = ({"vectors": rows.tolist()} for rows in model.vectors(text))
    if model.task == "text-classification":
        found = ({"labels": row} for row in model.classify(text))
    if model.task == "token-classification":
        found = ({"entities": row} for row in model.entities(text))
    if model.task == "question-answering":
        refuse(not question, "give the --question that each --text is to answer")
        found = (model.answer(question, one) for one in text)
    if model.task == "fill-mask":
        found = ({"words": model.fill(one)} for one in text)
    for one, result in zip(text, found, strict=True):
        yield json.dumps({"text": one, **result}) + "\n"
