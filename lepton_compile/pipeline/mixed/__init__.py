"""``quantize: auto``: bits of each weight, chosen by numbers within a budget of lost accuracy."""

from __future__ import annotations

from .choice import Ladder, Option, Outcome, choose, search
from .decision import Decision
from .objective import Directions, Likelihood, Objective, Own, Weights
from .search import decide

__all__ = [
    "Decision",
    "Directions",
    "Ladder",
    "Likelihood",
    "Objective",
    "Option",
    "Outcome",
    "Own",
    "Weights",
    "choose",
    "decide",
    "search",
]
