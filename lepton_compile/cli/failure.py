"""How a failed command ends: what, where, what was found, what was available, what to do next.

On a terminal in colour, elsewhere as plain lines on stderr, with ``--json`` as one document on
stdout. ``LEPTON_DEBUG=1`` adds the traceback.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from contextlib import suppress

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lepton_compile.cli.output import console, emit_json
from lepton_compile.cli.streams import say
from lepton_compile.errors import LeptonError, UsageError

__all__ = ["INTERRUPTED", "as_lepton_error", "report_failure", "show_error"]

INTERRUPTED = 130
LABELS = ("where", "found", "available", "next")
# What click raises from 8.2 on where no command is named; its message is the help.
HELP = getattr(click.exceptions, "NoArgsIsHelpError", ())


def report_failure(error: BaseException, *, as_json: bool) -> int:
    """Tells the user about an exception and returns the exit code it means."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, HELP):
        say(error.format_message(), err=True)
        return UsageError.exit_code
    if os.environ.get("LEPTON_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
    if _interrupted(error):
        if as_json:
            emit_json({"error": "Interrupted", "message": "interrupted"})
        say("interrupted; nothing half-written is left behind", err=True)
        return INTERRUPTED
    known = as_lepton_error(error)
    if as_json:
        with suppress(OSError):  # what cannot be written to may be what failed
            emit_json(known.as_dict() | {"exit_code": known.exit_code})
            return known.exit_code
    show_error(known, console(stderr=True))
    return known.exit_code


def as_lepton_error(error: BaseException) -> LeptonError:
    """The exception in the form of ours, whatever raised it."""
    if isinstance(error, LeptonError):
        return error
    if isinstance(error, click.ClickException):
        return _from_click(error)
    if _is_loader_error(error):
        return LeptonError(str(error))
    if isinstance(error, OSError) and error.errno is not None:
        full = error.errno == errno.ENOSPC
        return LeptonError(
            (error.strerror or str(error)).lower(),
            where=str(error.filename) if error.filename else None,
            hint="free some space, or choose another output folder" if full else None,
        )
    return LeptonError(
        f"unexpected {type(error).__name__}: {error}",
        hint="run again with LEPTON_DEBUG=1 for the traceback, and report it: this is a bug",
    )


def _interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C ended it, also where a library tells of it in its own words."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, KeyboardInterrupt | click.Abort):
            return True
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
    return False


def show_error(error: LeptonError, target: Console) -> None:
    """The error in lines: the message, then one labelled line for each field it has."""
    values = (error.where, error.found, ", ".join(error.available) or None, error.hint)
    target.print(
        Text.assemble(("error: ", "bold red"), (error.message, "bold")),
        soft_wrap=not target.is_terminal,
    )
    fields = Table.grid(padding=(0, 1, 0, 2))
    for label, value in zip(LABELS, values, strict=True):
        if value is None:
            continue
        style = "green" if label == "next" else ""
        if target.is_terminal:  # long values keep to a column of their own
            fields.add_row(Text(f"{label}:", "dim"), Text(str(value), style))
        else:
            line = Text.assemble((f"  {label + ':':<11}", "dim"), (str(value), style))
            target.print(line, soft_wrap=True)
    if fields.row_count:
        target.print(fields)


def _from_click(error: click.ClickException) -> LeptonError:
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else None
    kind = UsageError if error.exit_code == 2 else LeptonError
    return kind(error.format_message(), hint=hint)


def _is_loader_error(error: BaseException) -> bool:
    """The loader stands apart from the error tree; it can only have raised once imported."""
    loader = sys.modules.get("lepton_compile.runtime.loader")
    return loader is not None and isinstance(error, loader.LoaderError)
