"""``lepton-compile build``: a model and a recipe in, an artifact out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lepton_compile.cli.display import watching
from lepton_compile.cli.output import emit_json, json_option, show, stdout_for_json_only
from lepton_compile.cli.recipe_options import build_arguments, build_options, recipe_options

__all__ = ["build"]


@click.command()
@recipe_options
@build_options
@click.option("--force", is_flag=True, help="Replace an existing output folder.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
@json_option
def build(
    output: str | None,
    no_check: bool,
    no_verify: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compile a model into an artifact.

    RECIPE is a YAML file or the name of a shipped recipe; options replace parts of it, or stand
    for it with --model.
    """
    from lepton_compile.errors import LeptonError

    arguments = build_arguments(options.pop("recipe"), **options)
    arguments |= {"check": not no_check, "verify": not no_verify, "overwrite": force}
    try:
        with stdout_for_json_only(as_json), watching(quiet=quiet or as_json) as progress:
            from lepton_compile.api import build as build_artifact

            artifact = build_artifact(**arguments, output=output, progress=progress)
    except LeptonError as error:
        if error.report is not None and not (quiet or as_json):
            from lepton_compile.cli.report_view import report_parts

            show(report_parts(error.report))
        raise
    if as_json:
        emit_json(_summary(Path(artifact.path)))
    elif not quiet:
        from lepton_compile.cli.artifact_view import build_lines

        show(build_lines(Path(artifact.path)))


def _summary(folder: Path) -> dict[str, object]:
    from lepton_compile.artifact.manifest import MANIFEST_FILE, REPORT_FILE
    from lepton_compile.cli.artifact_view import read_json

    return {
        "artifact": str(folder),
        "manifest": read_json(folder / MANIFEST_FILE),
        "report": read_json(folder / REPORT_FILE),
    }
