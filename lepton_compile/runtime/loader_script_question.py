"""A question on the command line."""

from __future__ import annotations

from typing import Any

__all__ = ["add_question"]


def add_question(parser: Any) -> None:
    """The option for what is answered."""
    parser.add_argument("--question", help="answer this from each --text")
