"""The folder that an export makes: whole, or not there.

Everything goes into a hidden sibling that is renamed at the end. Large files are hard links to the
artifact's where the file system allows it, copies elsewhere.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from lepton_compile.arguments import flag_of, path_of
from lepton_compile.artifact.disk import elsewhere, told
from lepton_compile.artifact.sibling import Sibling
from lepton_compile.errors import ArtifactError

__all__ = ["OutputFolder"]


class OutputFolder(AbstractContextManager["OutputFolder"]):
    """Context manager over the temporary folder; leaving it without an error publishes it.

    Args:
        output: where it will stand; it must not exist.
        copy: never link, so that the export may be changed without changing the artifact.

    Raises:
        ArtifactError: the output exists, or cannot be written.
        UsageError: it is no path.
    """

    def __init__(self, output: str | Path, *, copy: bool = False) -> None:
        self.output = path_of(output, "output").absolute()
        self.copy = flag_of(copy, "copy")
        self._sibling = Sibling(self.output)

    @property
    def folder(self) -> Path:
        """Where to write."""
        return self._sibling.folder

    def __enter__(self) -> OutputFolder:
        try:
            self._sibling.remove_abandoned()
            self._refuse_existing()
            self._sibling.make()
        except OSError as error:
            raise _written(error, self.output) from error
        return self

    def place(self, source: Path, name: str) -> Path:
        """``source`` under ``name`` (which may have folders): a hard link, or a copy."""
        target = self._target(name)
        if not self.copy:
            try:
                # A link to a link would still point to where the artifact stands today.
                os.link(source.resolve(), target)
                return target
            except OSError:  # another file system, or one without links
                target.unlink(missing_ok=True)
        shutil.copyfile(source, target)
        return target

    def write(self, name: str, content: str | bytes) -> Path:
        """A small file of the export's own.

        Raises:
            ArtifactError: a text of the artifact's is none in UTF-8: it has half a character.
        """
        target = self._target(name)
        target.write_bytes(_bytes_of(content, name) if isinstance(content, str) else content)
        return target

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._refuse_existing()
                self.folder.rename(self.output)
        except OSError as failure:
            raise _written(failure, self.output) from failure
        finally:
            self._sibling.drop()
        if isinstance(error, OSError):
            raise _written(error, self.output) from error

    def _target(self, name: str) -> Path:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _refuse_existing(self) -> None:
        if self.output.exists() or self.output.is_symlink():
            raise ArtifactError(
                "the output exists",
                where="output",
                found=str(self.output),
                hint="choose another; an export never replaces anything",
            )


def _bytes_of(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ArtifactError(
            "a text of the artifact cannot be written as UTF-8",
            where=name,
            found=ascii(text[max(error.start - 20, 0) : error.end + 20]),
            hint="correct it where the model says it (names of classes are in config.json), and "
            "build again",
        ) from error


def _written(error: OSError, output: Path) -> ArtifactError:
    return ArtifactError(
        "the export could not be written",
        where=str(output),
        found=told(error),
        hint=elsewhere(error),
    )
