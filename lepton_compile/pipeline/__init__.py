"""Passes over a neutral model: choose them (``plan``), run them (``run``), check them (``check``)."""

from __future__ import annotations

from .check import NumericCheck
from .report import PassReport, PipelineReport
from .run import run

__all__ = ["NumericCheck", "PassReport", "PipelineReport", "run"]
