"""Passes over a neutral model: chosen by ``plan``, run by ``run``, compared by ``check``."""

from __future__ import annotations

from .check import NumericCheck
from .compute import precision_of
from .pass_names import expected_counts
from .plan import passes_for, rounds_activations
from .report import PassReport, PipelineReport
from .run import run

__all__ = [
    "NumericCheck",
    "PassReport",
    "PipelineReport",
    "expected_counts",
    "passes_for",
    "precision_of",
    "rounds_activations",
    "run",
]
