"""``lepton-compile verify``: an artifact against its recorded source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lepton_compile.cli.display import watching
from lepton_compile.cli.opened import comparing, room_of, source_options
from lepton_compile.cli.output import console, emit_json, json_option, stdout_for_json_only
from lepton_compile.cli.paths import PathType
from lepton_compile.errors import located

if TYPE_CHECKING:
    from lepton_compile.api.verification import Verified

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
@click.option("--threads", type=click.IntRange(min=1))
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

    The demands, the text and how much of it is read are those of the recipe it was built by.
    """
    gates = _gates(sets)
    with stdout_for_json_only(as_json), watching(quiet=as_json) as progress, located(folder):
        from dataclasses import replace

        from lepton_compile.api.demands import recorded_demands
        from lepton_compile.api.origin import origin_of
        from lepton_compile.api.texts import check_long_enough, read_text
        from lepton_compile.api.verification import verify_engines
        from lepton_compile.artifact import read_manifest
        from lepton_compile.errors import EngineError, UsageError

        progress.stage("resolve", str(folder))
        manifest = read_manifest(folder).as_dict()
        chosen = _targets(manifest, target)
        words = read_text(text, where="--text", error=UsageError) if text else None
        demands = recorded_demands(manifest, gates, words)
        demands = replace(demands, tokens=tokens or demands.tokens)
        source = origin_of(folder, manifest, spec, trusted)
        if text and words:
            check_long_enough(
                text, words, source, manifest["task"], where="--text", error=UsageError
            )
        progress.stage("verify", f"{', '.join(chosen)} against fp32 PyTorch")
        with comparing(manifest, spec):
            streamed, lacks = room_of(manifest, source)
            if lacks:
                raise EngineError(
                    "there is no room for the fp32 model that the artifact is compared with",
                    found=lacks,
                    hint="verify where there is more memory; the artifact itself is as it was",
                )
            found = verify_engines(
                folder,
                chosen,
                source,
                demands,
                threads=threads,
                progress=progress,
                streamed=streamed,
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


def _targets(manifest: Mapping[str, Any], asked: str | None) -> list[str]:
    """Engines to verify: those asked for, else those that run here. Raises EngineError."""
    from lepton_compile.api.verification import runnable
    from lepton_compile.errors import EngineError, UsageError

    there = [engine["target"] for engine in manifest["engines"]]
    if asked is not None:
        chosen = [name.strip() for name in asked.split(",")]
        if strange := [name for name in chosen if name not in there]:
            raise UsageError(
                "the artifact has no such engine",
                where="--target",
                found=", ".join(strange),
                available=there,
            )
        return chosen
    reasons = runnable(there)
    chosen = [name for name in there if not reasons[name]]
    if not chosen:
        raise EngineError(
            "no engine of this artifact runs on this machine",
            found="; ".join(f"{name}: {why}" for name, why in reasons.items()),
            hint="`lepton-compile targets` says what to install",
        )
    return chosen


def _tell(found: Sequence[Verified], as_json: bool) -> None:
    """The numbers of each engine, and beside them the error where a gate was missed."""
    from lepton_compile.cli.accuracy_view import verify_tables
    from lepton_compile.errors import GateError
    from lepton_compile.numerics import enforce

    engines = [each.as_dict() for each in found]
    first, *others = engines
    checks = [check for each in found for check in each.gates]
    if not as_json:
        for data in engines:
            for part in verify_tables(data):
                console().print(part)
        enforce(checks)
        return
    # The first stands on top, as in report.json; whoever wants them all alike reads `engines`.
    data = first | ({"also_verified": others} if others else {}) | {"engines": engines}
    try:
        enforce(checks)
    except GateError as error:
        emit_json(data | error.as_dict() | {"exit_code": error.exit_code})
        click.get_current_context().exit(error.exit_code)
    emit_json(data)
