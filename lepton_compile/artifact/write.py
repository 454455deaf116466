"""Write an artifact so that it is whole or not there.

Everything goes to a hidden sibling of the output folder. Only when each file is hashed, described
by the manifest and on the disk is the sibling renamed to the output's name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from lepton_compile.errors import ArtifactError

from .disk import FULL, elsewhere, room, told
from .manifest import MANIFEST_FILE, REPORT_FILE, UNSIGNED_FILES, FileEntry, Manifest
from .sibling import Sibling

__all__ = ["Artifact", "ArtifactWriter", "file_entry"]


@dataclass(frozen=True)
class Artifact:
    """A finished artifact. It is a path, too: ``lc.load(lc.build(..))``.

    Attributes:
        path: its folder.
        manifest: what ``manifest.json`` says: task, inputs and outputs, engines, files with their
            digests. ``manifest.as_dict()`` is JSON-ready.

    ``report()`` has what was measured.
    """

    path: Path
    manifest: Manifest = field(repr=False)  # pages of it

    def __fspath__(self) -> str:
        return str(self.path)

    def size(self) -> int:
        """Bytes of all files that the manifest vouches for."""
        return sum(entry.size for entry in self.manifest.files.values())

    def report(self) -> dict[str, Any]:
        """What the build measured, as ``report.json`` has it: ``verify`` (accuracy), ``gates``,
        ``passes``, ``seconds``, ``bench`` and more; None where something was not measured.

        Raises:
            ArtifactError: the file is not there, or no report; no digest vouches for it.
        """
        file = self.path / REPORT_FILE
        try:
            found = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(
                "the report of the artifact cannot be read",
                where=str(file),
                found=str(error),
                hint="an engine runs without; building again writes it",
            ) from error
        if not isinstance(found, dict):
            raise ArtifactError("this is no report", where=str(file), found=f"{found!r:.60}")
        return found


class ArtifactWriter:
    """Context manager over the temporary folder of a build.

    Args:
        output: where the artifact will stand.
        overwrite: replace what stands there; without it an existing path is refused.

    ``folder`` is where to write. ``seal`` hashes and writes the manifest, so that a loader can open
    the temporary folder; ``publish`` moves it to its place. Leaving the context without ``publish``
    removes everything that was written, and the folders above it that were made for it.

    Raises:
        ArtifactError: the output exists, or its parent cannot be written.
    """

    def __init__(self, output: Path, *, overwrite: bool = False) -> None:
        self.output = output.absolute()
        self.overwrite = overwrite
        self.folder = self.output
        self._manifest: Manifest | None = None
        self._sibling = Sibling(self.output)

    def __enter__(self) -> ArtifactWriter:
        try:
            self._sibling.remove_abandoned()
            self._refuse_existing()
            self._sibling.make()
        except OSError as error:
            raise _disk_error(error, self.output) from error
        self.folder = self._sibling.folder
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sibling.drop()
        if isinstance(error, OSError) and error.errno in FULL:
            raise _disk_error(error, self.output) from error

    def seal(self, manifest: Manifest) -> Artifact:
        """Hash every file and write the manifest; its ``files`` are filled in here."""
        entries = {}
        for path in _files(self.folder):
            name = path.relative_to(self.folder).as_posix()
            if name not in UNSIGNED_FILES:
                entries[name] = file_entry(path)
        return self._sealed(replace(manifest, files=entries))

    def reseal(self, manifest: Manifest) -> Artifact:
        """Another manifest of the files that ``seal`` has hashed, which are not read again."""
        assert self._manifest is not None, "seal() comes first"
        return self._sealed(replace(manifest, files=self._manifest.files))

    def _sealed(self, manifest: Manifest) -> Artifact:
        self._manifest = manifest
        (self.folder / MANIFEST_FILE).write_text(self._manifest.to_json(), "utf-8")
        return Artifact(self.folder, self._manifest)

    def publish(self) -> Artifact:
        """Flush everything to the disk and rename the folder to the output's name.

        Raises:
            ArtifactError: the output appeared in the meantime and must not be replaced, or the
                system does not let it be written.
        """
        assert self._manifest is not None, "seal() comes first"
        try:
            self._put_in_place()
        except OSError as error:
            raise _disk_error(error, self.output) from error
        return Artifact(self.output, self._manifest)

    def _put_in_place(self) -> None:
        for path in _files(self.folder):
            _flush(path)
        for folder in [p for p in self.folder.rglob("*") if p.is_dir()] + [self.folder]:
            _flush(folder)
        self._refuse_existing()
        old = None
        if self.output.exists():
            old = self._sibling.aside
            self.output.rename(old)
        try:
            self.folder.rename(self.output)
        except OSError:
            if old is not None:
                old.rename(self.output)
            raise
        _flush(self.output.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        self.folder = self.output

    def _refuse_existing(self) -> None:
        linked = self.output.is_symlink()
        if not self.output.exists() and not linked:
            return
        ours = (self.output / MANIFEST_FILE).is_file() and not linked
        if self.overwrite and ours:
            return
        never = "is a link" if linked else "holds no artifact"
        raise ArtifactError(
            "the output folder exists",
            where="output",
            found=str(self.output),
            hint="choose another with -o, or replace the artifact with --force (in Python: "
            "output=, overwrite=True)"
            if ours
            else f"choose another with -o; it {never}, so it is never replaced",
        )


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.stat().st_size, digest)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _disk_error(error: OSError, output: Path) -> ArtifactError:
    scratch = tempfile.gettempdir()
    if error.filename == scratch:  # of this build, but not of its output
        return ArtifactError(
            "the folder for temporary files could not be written",
            where=scratch,
            found=error.strerror or str(error),
            hint=f"{room(error) or 'make it writable'}, or name another folder in the environment "
            "variable TMPDIR; nothing was left behind",
        )
    return ArtifactError(
        "the artifact could not be written",
        where=str(output),
        found=told(error),
        hint=elsewhere(error),
    )
