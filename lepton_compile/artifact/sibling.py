"""The hidden folder beside an output in which it is made, and what is removed where that fails.

A process that is killed leaves its folder, and the next one of that output removes it. Whether one
still runs is told by its lock on the folder; only where a disk has no locks, by its process number,
which means nothing in another container.
"""

from __future__ import annotations

import glob
import os
import re
import secrets
import shutil
import weakref
from contextlib import suppress
from pathlib import Path

from lepton_plugins.workroom import locked

__all__ = ["Sibling"]

_MARK, _HELD, _OLD = ".partial-", "held", "-old"
_OURS = re.compile(rf"(\d+|{_HELD})-[0-9a-f]+(?:{_OLD})?", re.ASCII)


class Sibling:
    """Becomes ``output`` when it is renamed to it.

    Attributes:
        folder: where to write, once ``make`` was called.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output
        self._above: list[Path] = []
        self._release: weakref.finalize[..., Sibling] | None = None

    @property
    def aside(self) -> Path:
        """Where to move what stands at the output, for as long as that is replaced."""
        return self.folder.with_name(self.folder.name + _OLD)

    def make(self) -> None:
        """Make the folder and those above it; its name says that it is held, once it is locked.

        Raises:
            OSError: they cannot be made; none is left.
        """
        self._above = [folder for folder in self.output.parents if not folder.exists()]
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            self._make()
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Removes the folder, where it still has this name, and those above that were made for it,
        unless somebody else has put something in."""
        if self.folder != self.output:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._release is not None:
            self._release()
        for folder in self._above:
            with suppress(OSError):  # it is not empty, or was never made
                folder.rmdir()

    def remove_abandoned(self) -> None:
        """Folders of this output whose processes are gone.

        A build that was killed between its last two renames left the artifact that it was to
        replace beside an empty place: that one goes back.

        Raises:
            OSError: it could not be moved there.
        """
        name = self.output.name
        for path in sorted(self.output.parent.glob(f".{glob.escape(name)}{_MARK}*")):
            # Of the whole rest: an output may be called out.partial-1, and is another than out.
            ours = _OURS.fullmatch(path.name.removeprefix(f".{name}{_MARK}"))
            if ours is None or (_held(path) if ours[1] == _HELD else _alive(int(ours[1]))):
                continue
            if path.name.endswith(_OLD) and not self.output.exists():
                path.rename(self.output)
            else:
                shutil.rmtree(path, ignore_errors=True)

    def _make(self) -> None:
        mark, token = f".{self.output.name}{_MARK}", secrets.token_hex(4)
        folder = self.output.with_name(f"{mark}{os.getpid()}-{token}")
        folder.mkdir()
        self.folder = folder
        with suppress(OSError):  # a disk without locks
            self._release = weakref.finalize(self, os.close, locked(self.folder))
        if self._release is not None:
            self.folder = self.folder.rename(self.output.with_name(f"{mark}{_HELD}-{token}"))


def _held(path: Path) -> bool:
    """Whether a process has this folder, or has moved it aside for its own."""
    try:
        os.close(locked(path.with_name(path.name.removesuffix(_OLD))))
    except FileNotFoundError:  # it stands at the output, and what was moved aside can go
        return False
    except OSError:
        return True
    return False


def _alive(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):  # no system counts that far
            return False
    return True
