"""The command line: ``lepton-compile COMMAND``.

Exit codes: 0 done, 1 failed, 2 used wrongly, 3 a gate was missed, 130 interrupted. A command's file
is imported when it is called, and the heavy libraries only inside it, so that help is instant.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

import click

from lepton_compile.api.libraries import own_process
from lepton_compile.cli.failure import report_failure
from lepton_compile.cli.group import LazyGroup
from lepton_compile.cli.streams import spell_letters

__all__ = ["cli", "main"]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="lepton-compile", prog_name="lepton-compile")
def cli() -> None:
    """Compile Hugging Face models into engines that any server can load."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; nothing that happens inside escapes."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        own_process()
        spell_letters()
    # Bars of the libraries would break into the display of the stages.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with _ended_politely():
            code = cli.main(given, prog_name="lepton-compile", standalone_mode=False)
    except SystemExit as end:  # click's way out when the reader of its help has left
        return end.code if isinstance(end.code, int) else 1
    except (Exception, KeyboardInterrupt) as error:
        return report_failure(error, as_json="--json" in given)
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _ended_politely() -> Iterator[None]:
    """A polite kill, or a terminal that goes, ends a build as Ctrl-C does: what was half written
    is removed. A process that is to outlive its terminal (nohup) does.

    A program that calls ``main`` has its own handler back afterwards.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only there may it be set
        yield
        return
    heard, gone = [signal.SIGTERM], getattr(signal, "SIGHUP", None)
    if gone is not None and signal.getsignal(gone) is signal.SIG_DFL:
        heard.append(gone)
    before = {each: signal.signal(each, interrupt) for each in heard}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
