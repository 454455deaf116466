"""``lepton-compile bench``: how fast an artifact is on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from lepton_compile.cli.display import watching
from lepton_compile.cli.opened import comparing, reference_of, source_options
from lepton_compile.cli.output import console, emit_json, json_option, stdout_for_json_only
from lepton_compile.cli.paths import PathType
from lepton_compile.errors import located

__all__ = ["bench"]

RUNNABLE = "`lepton-compile targets` says what this machine can run; LEPTON_DEBUG=1 shows more"
IMPORTED = "the file may take fewer tokens than it says: build it with `shapes: {sequence: 1..N}`"


@click.command()
@click.argument("folder", metavar="DIR", type=PathType())
@source_options
@click.option("--eager/--no-eager", default=True, help="Run PyTorch beside it (the default).")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds per case.")
@click.option("--threads", type=click.IntRange(min=1))
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
    from lepton_compile.api.origin import origin_of
    from lepton_compile.api.refusals import BEGAN, engine_failed
    from lepton_compile.artifact import read_manifest
    from lepton_compile.artifact.manifest import PAGE_FILE
    from lepton_compile.cli.speed_view import bench_tables
    from lepton_compile.errors import SourceError
    from lepton_compile.numerics import bench as measure
    from lepton_compile.report import add_bench
    from lepton_compile.runtime import load

    alone = "asked for with --no-eager"
    with stdout_for_json_only(as_json), watching(quiet=as_json) as progress, located(folder):
        read_manifest(folder)  # what is no artifact is no engine that fails to open
        progress.stage("resolve", str(folder))
        with engine_failed("no engine of this artifact opens", str(folder), RUNNABLE):
            model, source, reference = load(folder, threads=threads), None, None
        if eager:
            try:
                source = origin_of(folder, model.manifest, spec, trusted)
                reference = reference_of(model.manifest, source)
            except (ImportError, SourceError) as error:
                if spec:
                    raise
                alone = str(error).splitlines()[0]
        progress.stage(
            "bench", "the engine alone" if reference is None else "the engine and PyTorch in turn"
        )
        imported = (model.manifest.get("model") or {}).get("model_type") is None
        hint = IMPORTED if imported else BEGAN
        failed = engine_failed("the engine fails while it is measured", model.target, hint)
        with comparing(model.manifest, spec), failed:
            report = measure(
                model, reference, artifact=folder, source=source, rounds=rounds, progress=progress
            )
    left_out = alone if reference is None else None
    data = report.as_dict() | {"target": model.target, "eager_left_out": left_out}
    kept = add_bench(folder, data)
    if as_json:
        emit_json(data)
        return
    for part in bench_tables(data):
        console().print(part)
    if kept:
        console().print(f"Kept in {folder / PAGE_FILE}")
