"""``lepton-compile rebuild``: the same bytes once more, from what a manifest pins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lepton_compile.cli.display import watching
from lepton_compile.cli.output import (
    bytes_text,
    console,
    emit_json,
    json_option,
    many_text,
    stdout_for_json_only,
    table,
)
from lepton_compile.cli.paths import PathType
from lepton_compile.cli.source_options import source_options, told_at_options

if TYPE_CHECKING:
    from lepton_compile.api.rebuilding import Rebuilt

__all__ = ["rebuild"]


@click.command()
@click.argument("path", metavar="DIR|MANIFEST", type=PathType())
@source_options
@click.option("-o", "--output", metavar="DIR", help="Keep what is built; must not exist.")
@click.option("--force", is_flag=True, help="Replace an existing output folder.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
@json_option
def rebuild(
    path: Path,
    spec: str | None,
    trusted: bool,
    output: str | None,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build an artifact again from what its manifest pins; exit 3 if any byte is another.

    A manifest.json that is kept without its artifact, beside a recipe for instance, is enough:
    with -o it becomes the artifact again, to the last bit.
    """
    with stdout_for_json_only(as_json), watching(quiet=quiet or as_json) as progress:
        from lepton_compile.api import rebuild as build_again

        with told_at_options():
            found = build_again(
                path,
                model=spec,
                output=output,
                overwrite=force,
                trust_remote_code=trusted,
                progress=progress,
            )
    if as_json:
        emit_json(_data(found))
    elif not quiet:
        _show(found)


def _data(found: Rebuilt) -> dict[str, Any]:
    return {
        "same": True,
        "digest": found.manifest.digest(),
        "files": len(found.manifest.files),
        "bytes": found.size,
        "changes": {name: {"was": w, "is": i} for name, (w, i) in found.changes.items()},
        "artifact": None if found.artifact is None else str(found.artifact.path),
    }


def _show(found: Rebuilt) -> None:
    out, files = console(), many_text(len(found.manifest.files), "file")
    out.print(f"The same to the last bit: {files}, {bytes_text(found.size)}.")
    if found.changes:
        rows = [(name, was, now) for name, (was, now) in found.changes.items()]
        out.print(table("What made no difference", ("what", "was", "is"), rows))
    if found.artifact is not None:
        out.print(f"Kept in {found.artifact.path}")
