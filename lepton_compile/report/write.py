"""Write both files of a report, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lepton_compile.errors import ArtifactError
from lepton_compile.report.data import report_data
from lepton_compile.report.page import render

__all__ = ["write_report"]


class _Manifest(Protocol):
    def as_dict(self) -> dict[str, Any]: ...


class _Artifact(Protocol):
    @property
    def path(self) -> Path: ...

    @property
    def manifest(self) -> _Manifest: ...


def write_report(artifact: _Artifact, **parts: Any) -> None:
    """Writes ``report.json`` and ``report.html`` into the artifact's folder.

    Args:
        artifact: where, and the manifest to report on.
        parts: as ``report_data`` takes them: ``seconds``, ``capture``, ``passes``, ``verify``,
            ``gates``, ``bench``.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    data = report_data(artifact.manifest.as_dict(), **parts)
    try:
        _write(artifact.path / "report.json", _json(data))
        _write(artifact.path / "report.html", render(data))
    except OSError as error:
        raise ArtifactError(
            "the report cannot be written", where=str(artifact.path), found=str(error)
        ) from error


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
