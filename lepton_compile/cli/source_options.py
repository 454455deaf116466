"""Options of what looks for the PyTorch model that an artifact came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from lepton_compile.errors import LeptonError

__all__ = ["source_options", "told_at_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--model",
        "spec",
        metavar="M",
        help="Where the source is now; default: as the manifest says.",
    ),
    click.option(
        "--trust-remote-code", "trusted", is_flag=True, help="Run Python files of the model."
    ),
)


def source_options(command: F) -> F:
    """Adds the options that say where the model is by now, and whether its code may run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def told_at_options() -> Iterator[None]:
    """What is wrong with an argument of a call is told at the option of its name."""
    try:
        yield
    except LeptonError as error:
        if error.where in ("model", "text", "target"):
            error.where = f"--{error.where}"
        elif (error.where or "").startswith("gates."):
            error.where = f"--set {error.where}"
        raise
