"""Numbers on the command line: what a loader would refuse is wrong usage before one is opened."""

from __future__ import annotations

import math
from typing import Any

import click

__all__ = ["THREADS", "Finite"]

THREADS = click.IntRange(min=1, max=1024)
"""As many as a loader takes."""


class Finite(click.FloatRange):
    """``click.FloatRange`` without infinity, and without NaN, which is in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click does it, once it is finite."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number
