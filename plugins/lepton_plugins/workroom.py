"""A folder for temporary files that goes with its process, even with one that is killed.

A process that is killed cannot remove its folder, which may hold gigabytes. The next one does, once
nobody has the folder locked: the system takes a lock back from a process that is gone, and it holds
between containers that share a disk, where numbers of processes say nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where a killed process leaves its folder behind
    fcntl = None  # type: ignore[assignment]

__all__ = ["Workroom", "locked"]

YOUNG = 60  # seconds in which a folder may be made, and not be locked yet


class Workroom(tempfile.TemporaryDirectory[str]):
    """A temporary folder; those of ``kind`` whose process is gone are removed before it is made.

    Args:
        above: where to make it; left out, in the folder for temporary files.

    Raises:
        OSError: the folder above cannot be written.
    """

    def __init__(self, kind: str, above: Path | None = None) -> None:
        prefix = f"lepton-{kind}-held-"
        _remove_abandoned(prefix, above or Path(tempfile.gettempdir()))
        super().__init__(prefix=prefix, dir=above)
        with suppress(OSError):  # a disk without locks
            weakref.finalize(self, os.close, locked(Path(self.name)))


def _remove_abandoned(prefix: str, above: Path) -> None:
    for path in above.glob(f"{prefix}*"):
        with suppress(OSError):  # somebody has it, or it is another user's
            if time.time() - path.lstat().st_mtime < YOUNG:
                continue
            held = locked(path)
            shutil.rmtree(path, ignore_errors=True)
            os.close(held)


def locked(path: Path) -> int:
    """The open folder, which nobody else has.

    Raises:
        OSError: somebody has it, it is no folder, or nothing can be locked.
    """
    if fcntl is None:
        raise OSError("no locks here")
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
