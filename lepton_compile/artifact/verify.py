"""Check that an artifact is what its manifest says, before anything in it is used."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

from lepton_compile.arguments import path_of
from lepton_compile.errors import ArtifactError, located

from .form import check_manifest
from .manifest import MANIFEST_FILE, FileEntry, Manifest
from .write import Artifact, file_entry

__all__ = ["manifest_in", "open_artifact", "read_manifest"]


def open_artifact(folder: str | Path) -> Artifact:
    """Read the manifest and check every file against it.

    Raises:
        ArtifactError: no artifact, another format, or a file that is missing, changed or outside.
    """
    path = path_of(folder, "the artifact's folder")
    manifest = read_manifest(path)
    with located(path):
        for name, entry in manifest.files.items():
            _check_file(path, name, entry)
    return Artifact(path, manifest)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest alone: its digest is checked, and the type of everything that is read of it.

    Raises:
        ArtifactError: as for ``open_artifact``.
    """
    file = path_of(folder, "the artifact's folder") / MANIFEST_FILE
    if not file.is_file():
        raise ArtifactError(
            "this folder is no artifact", found=str(folder), hint=f"it has no {MANIFEST_FILE}"
        )
    return manifest_in(file)


def manifest_in(file: Path) -> Manifest:
    """The manifest that a file holds, wherever it lies. Errors: as ``read_manifest``."""
    text = file.read_bytes()
    with located(file):
        manifest = Manifest.from_json(text)
        check_manifest(json.loads(text))
    return manifest


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    pure, path = PurePosixPath(name.replace("\\", "/")), folder / name
    inside = named = not pure.is_absolute() and ".." not in pure.parts
    try:
        inside = named and path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file has
        inside = False
    if not inside:
        raise ArtifactError(
            "the manifest names a file outside the artifact",
            found=name,
            hint="a link leads there: open a copy without links (cp -rL)" if named else None,
        )
    if not os.path.isfile(path):  # of a name too long for a file, pathlib raises
        raise ArtifactError("a file of the artifact is missing", where=str(folder), found=name)
    if file_entry(path) != entry:
        raise ArtifactError(
            "a file of the artifact was changed or damaged",
            where=str(folder),
            found=name,
            hint="build the artifact again, or copy it again from where it came",
        )
