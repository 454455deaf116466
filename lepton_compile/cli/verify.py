"""``lepton-compile verify``: an artifact against its recorded source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lepton_compile.cli.display import watching
from lepton_compile.cli.opened import precision_of, reference_of, source_of, source_option
from lepton_compile.cli.output import console, emit_json, json_option, stdout_for_json_only

if TYPE_CHECKING:
    from lepton_compile.numerics.gates import GateCheck

__all__ = ["verify"]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@source_option
@click.option(
    "--text",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Compare on this text file instead of the sample.",
)
@click.option("--tokens", type=click.IntRange(min=2), help="Stop after so many; default: all.")
@click.option("--threads", type=click.IntRange(min=1))
@json_option
def verify(
    folder: Path,
    spec: str | None,
    text: Path | None,
    tokens: int | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare an artifact with the fp32 PyTorch model it came from; exit 3 if it misses a gate."""
    from lepton_compile.cli.accuracy_view import verify_tables
    from lepton_compile.numerics import check_gates, enforce, tolerance_for
    from lepton_compile.numerics import verify as compare
    from lepton_compile.runtime import load

    with stdout_for_json_only(as_json), watching(quiet=as_json) as progress:
        progress.stage("resolve", str(folder))
        model = load(folder, threads=threads)
        task, precision = model.task, precision_of(model.manifest, model.target)
        source = source_of(model.manifest, spec)
        tokenizer, reference = source.tokenizer(), reference_of(source, task)
        progress.stage("verify", f"{precision} engine against fp32 PyTorch")
        words = text.read_text(encoding="utf-8") if text else None
        report = compare(
            model,
            reference,
            tokenizer,
            task,
            precision=precision,
            text=words,
            tokens=tokens,
            progress=progress,
        )
    checks = check_gates(report, tolerance_for(precision, task))
    data = report.as_dict() | {"gates": [check.as_dict() for check in checks]}
    if as_json:
        _emit(data, checks)
        return
    for part in verify_tables(data):
        console().print(part)
    enforce(checks)


def _emit(data: dict[str, Any], checks: Sequence[GateCheck]) -> None:
    """One document: the numbers, and beside them the error where a gate was missed."""
    from lepton_compile.errors import GateError
    from lepton_compile.numerics import enforce

    try:
        enforce(checks)
    except GateError as error:
        emit_json(data | error.as_dict() | {"exit_code": error.exit_code})
        click.get_current_context().exit(error.exit_code)
    emit_json(data)
