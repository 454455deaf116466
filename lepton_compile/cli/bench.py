"""``lepton-compile bench``: how fast an artifact is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lepton_compile.cli.display import watching
from lepton_compile.cli.numbers import THREADS
from lepton_compile.cli.output import (
    console,
    emit_json,
    json_option,
    show,
    stdout_for_json_only,
)
from lepton_compile.cli.paths import PathType
from lepton_compile.cli.source_options import source_options, told_at_options
from lepton_compile.cli.streams import say
from lepton_compile.errors import located

__all__ = ["bench"]


@click.command()
@click.argument("folder", metavar="DIR", type=PathType())
@source_options
@click.option("--eager/--no-eager", default=True, help="Run PyTorch beside it (the default).")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds per case.")
@click.option("--threads", type=THREADS)
@json_option
def bench(
    folder: Path,
    spec: str | None,
    trusted: bool,
    eager: bool,
    rounds: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure speed, load time, memory and size, next to PyTorch eager in turn.

    The model it came from has to be there for the comparison; where it is not, the engine is
    measured alone and the reason is said. The figures go into the artifact's report, too.
    """
    with stdout_for_json_only(as_json), watching(quiet=as_json) as progress, located(folder):
        from lepton_compile.api.benching import run_bench

        with told_at_options():
            data, kept = run_bench(
                folder,
                model=spec,
                eager=eager,
                rounds=rounds,
                threads=threads,
                trusted=trusted,
                progress=progress,
            )
    if as_json:
        emit_json(data)
    else:
        _show(data, folder, kept)
    if not kept:
        say(f"Not kept: {folder} has no report, or none that can be written", err=True)


def _show(data: Mapping[str, Any], folder: Path, kept: bool) -> None:
    from lepton_compile.artifact.manifest import PAGE_FILE
    from lepton_compile.cli.speed_view import bench_tables

    show(bench_tables(data))
    if kept:
        console().print(f"Kept in {folder / PAGE_FILE}")
