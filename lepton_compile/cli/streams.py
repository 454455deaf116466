"""Where text leaves the process: readers that stop reading, letters that a stream lacks."""

from __future__ import annotations

import codecs
import io
import os
import sys

import click
from rich.console import Console

__all__ = ["StreamConsole", "say", "spell_letters"]

SPELLED = {"\N{MULTIPLICATION SIGN}": "x", "·": "-", "✓": "+", "…": "..."}
"""Signs of our own -> what stands for them in streams that lack them."""


class StreamConsole(Console):
    """A console whose reader may leave, as ``head`` does: what comes after that goes nowhere, and
    the command carries on to its own exit code."""

    def on_broken_pipe(self) -> None:
        """Called by rich, whose own way out would be exit code 1, in the middle of a build too."""
        self.quiet = True
        _read_by_nobody(stderr=self.stderr)


def say(text: object = "", *, nl: bool = True, err: bool = False) -> bool:
    """Writes text as it is, to stdout or stderr; returns whether there is anyone to read it."""
    try:
        click.echo(text, nl=nl, err=err)
    except BrokenPipeError:
        _read_by_nobody(stderr=err)
        return False
    return True


def _read_by_nobody(*, stderr: bool) -> None:
    """What is still in the stream's buffer, and all that follows, is let go."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (sys.stderr if stderr else sys.stdout).fileno())
    os.close(nowhere)


def spell_letters() -> None:
    """Make stdout and stderr spell letters that their encoding lacks with those that it has."""
    codecs.register_error("lepton-spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):  # None where it is closed
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="lepton-spelled")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """Our own signs by look-alikes, other letters by their escapes: a name must stay one."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(SPELLED.get(letter) or _escaped(letter) for letter in letters), error.end


def _escaped(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode("ascii")
