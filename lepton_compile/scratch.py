"""What a build keeps on disk, or gives back to the system, to have memory for something else."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

__all__ = ["Shelf", "Shelved", "give_back_freed", "on_scratch_disk", "scratch_lacks"]


@contextmanager
def on_scratch_disk() -> Iterator[None]:
    """Errors of the disk inside name the folder for temporary files: that of a full disk names no
    file, and would be taken for one of the output."""
    try:
        yield
    except OSError as error:
        error.filename = tempfile.gettempdir()
        raise


def scratch_lacks(needed: int, what: str) -> str:
    """Why the disk for temporary files has no room for ``needed`` bytes; empty where it has."""
    if needed <= shutil.disk_usage(tempfile.gettempdir()).free:
        return ""
    # In words that do not change from run to run: they stand in the manifest.
    return f"{what} are {needed / 1e9:.2f} GB, the disk for temporary files (TMPDIR) has less"


def give_back_freed() -> None:
    """Hand memory that nobody uses back to the system before something large begins.

    Tracing a model and reading its weights leave hundreds of megabytes to the allocator, in pieces
    that a tensor of that size does not fit into. Only glibc has to be asked.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    trim(0)


class Shelf:
    """Arrays that are looked at now and then, in a file without a name; it is gone with the last
    of them."""

    def __init__(self) -> None:
        # Closed when it is collected: arrays read it for as long as they live.
        with on_scratch_disk():
            self._file: BinaryIO = tempfile.TemporaryFile(prefix="lepton-shelf-")  # noqa: SIM115
        self._end = 0

    def zeros(self, shape: Sequence[int], dtype: Any) -> Shelved:
        """A new array; what was never written takes no room on most disks."""
        made = Shelved(self._file, self._end, tuple(shape), np.dtype(dtype))
        self._end += made.nbytes
        with on_scratch_disk():
            self._file.truncate(self._end)
        return made


class Shelved:
    """One array, read and written in rows of its first axis."""

    def __init__(
        self, file: BinaryIO, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._file, self._offset = file, offset
        self.shape, self.dtype = shape, dtype
        self._row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return len(self) * self._row

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """A copy of rows ``start..stop``, all of them where nothing is said."""
        stop = len(self) if stop is None else min(stop, len(self))
        array = np.empty((stop - start, *self.shape[1:]), self.dtype)
        at, left = self._offset + start * self._row, array.reshape(-1).view(np.uint8).data
        while left:  # a call moves at most 2 GiB
            count = os.preadv(self._file.fileno(), [left], at)
            at, left = at + count, left[count:]
        return array

    def write(self, rows: np.ndarray, start: int = 0) -> None:
        """Put ``rows`` in the place of those from ``start`` on."""
        data = np.ascontiguousarray(rows, self.dtype)
        at, left = self._offset + start * self._row, data.reshape(-1).view(np.uint8).data
        with on_scratch_disk():
            while left:
                count = os.pwrite(self._file.fileno(), left, at)
                at, left = at + count, left[count:]
