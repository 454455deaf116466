"""Write both files of a report, each whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from lepton_compile.errors import ArtifactError
from lepton_compile.report.data import REPORT_FORMAT, report_data
from lepton_compile.report.page import render

__all__ = ["add_bench", "write_pages", "write_report"]


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
            ``gates``, ``bench`` and so on.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    data = report_data(artifact.manifest.as_dict(), **parts)
    try:
        write_pages(data, artifact.path / "report.json", artifact.path / "report.html")
    except OSError as error:
        raise ArtifactError(
            "the report cannot be written", where=str(artifact.path), found=str(error)
        ) from error


def add_bench(folder: Path, bench: Mapping[str, Any]) -> bool:
    """Puts measurements into the report of an artifact, which no digest covers.

    Returns whether that was done: not where there is no report, one of another version, one that no
    page can be made of, or a folder that cannot be written.
    """
    document = folder / "report.json"
    try:
        data = json.loads(document.read_text("utf-8"))
        if data.get("format") != REPORT_FORMAT:
            return False
        write_pages({**data, "bench": bench}, document, folder / "report.html")
    except Exception:  # whatever a file that someone edited holds; what was measured is worth more
        return False
    return True


def write_pages(data: Mapping[str, Any], document: Path, page: Path) -> None:
    """Writes a report (``report_data``) as JSON and as a page, both made before either is written.
    Raises OSError."""
    texts = {document: _json(data), page: render(data)}
    for path, text in texts.items():
        _write(path, text)


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
