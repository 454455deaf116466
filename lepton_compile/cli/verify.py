"""``lepton-compile verify``: an artifact against its recorded source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lepton_compile.cli.display import watching
from lepton_compile.cli.numbers import THREADS
from lepton_compile.cli.output import console, emit_json, json_option, stdout_for_json_only
from lepton_compile.cli.paths import PathType
from lepton_compile.cli.source_options import source_options, told_at_options
from lepton_compile.errors import located

if TYPE_CHECKING:
    from lepton_compile.api.verifying import Verification

__all__ = ["verify"]


@click.command()
@click.argument("folder", metavar="DIR", type=PathType())
@source_options
@click.option("--target", metavar="X[,Y]", help="Engines to verify; default: all that run here.")
@click.option(
    "--text",
    type=PathType(exists=True, dir_okay=False),
    help="Compare on this text file; default: what the build compared on.",
)
@click.option("--tokens", type=click.IntRange(min=2), help="Stop after so many; default: as built.")
@click.option(
    "--set", "sets", metavar="gates.X=VALUE", multiple=True, help="Replace one demanded number."
)
@click.option("--threads", type=THREADS)
@json_option
def verify(
    folder: Path,
    spec: str | None,
    trusted: bool,
    target: str | None,
    text: Path | None,
    tokens: int | None,
    sets: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare an artifact with the fp32 PyTorch model it came from; exit 3 if it misses a gate.

    Gates, text and number of tokens are those of the recipe that the artifact was built from.
    """
    gates = _gates(sets)
    targets = [name.strip() for name in target.split(",")] if target is not None else None
    with stdout_for_json_only(as_json), watching(quiet=as_json) as progress, located(folder):
        from lepton_compile.api.verifying import run_verification

        with told_at_options():
            found = run_verification(
                folder,
                model=spec,
                targets=targets,
                text=text,
                tokens=tokens,
                gates=gates,
                threads=threads,
                trusted=trusted,
                progress=progress,
            )
    _tell(found, as_json)


def _gates(sets: Sequence[str]) -> dict[str, Any]:
    """Gates by name, read as a recipe's are. Raises RecipeError, UsageError."""
    from lepton_compile.errors import UsageError
    from lepton_compile.recipe import load_recipe, parse_override

    given = dict(parse_override(each) for each in sets)
    other = [key for key in given if not key.startswith("gates.")]
    if other:
        raise UsageError(
            "only gates are set when an artifact is verified",
            where=f"--set {other[0]}",
            available=["gates.perplexity", "gates.cosine", "gates.max_error", "gates.argmax"],
            hint="--text and --tokens say what is compared on",
        )
    return load_recipe({"model": "-"}, given).gates.model_dump(exclude_unset=True)


def _tell(found: Verification, as_json: bool) -> None:
    """The numbers of each engine, and beside them the error where a gate was missed."""
    from lepton_compile.cli.accuracy_view import verify_tables
    from lepton_compile.errors import GateError

    data = found.as_dict()
    if not as_json:
        for engine in data["engines"]:
            for part in verify_tables(engine):
                console().print(part)
    try:
        found.enforce()
    except GateError as error:
        error.report = None  # it stands there already
        if not as_json:
            raise
        emit_json(data | error.as_dict() | {"exit_code": error.exit_code})
        click.get_current_context().exit(error.exit_code)
    if as_json:
        emit_json(data)
