"""Texts on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

__all__ = ["about", "add_texts"]


def add_texts(parser: Any, what: Any) -> None:
    """Options for texts."""
    what.add_argument("--text", nargs="+", help="embed, classify or complete these texts")
    parser.add_argument("--question", help="answer this from each --text")


def about(model: Any, text: list[str], question: str | None) -> Iterator[str]:
    """What the model's task makes of each text, as JSON."""
    found: Any
    if question is not None:
        found = (model.answer(question, one) for one in text)
    elif model.task == "fill-mask":
        found = ({"words": model.fill(one)} for one in text)
    elif model.task == "feature-extraction":
        found = ({"embedding": row} for row in model.embed(text).tolist())
    else:
        found = ({"labels": row} for row in model.classify(text))
    for one, result in zip(text, found, strict=True):
        yield json.dumps({"text": one, **result}) + "\n"
