"""Kernels that TensorRT-RTX compiled on this machine, kept from one process to the next.

The runtime compiles an engine's kernels when it is first used, which takes seconds. It takes them
back from a file only if they fit: device, driver and its own version. The file lies beside the
artifact, never in it, or in the user's cache folder where that place cannot be written. It holds
code that no manifest vouches for, so that it must belong to the user alone; a file that does not,
or that is damaged, is ignored and written anew.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["KernelFile"]

MARK = b"lepton kernels 1\n"


class KernelFile:
    """The file of the kernels for what ``parts`` name: engine, device, driver and runtime."""

    def __init__(self, root: Path, *parts: str) -> None:
        name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32] + ".kernels"
        home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
        self.places = [root.with_name(f".{root.name}.kernels") / name]
        if home.is_absolute():  # else there is no home
            self.places += [home / "lepton-compile" / "kernels" / name]
        self._known = b""

    def read(self) -> bytes | None:
        """The bytes that ``write`` was given last, None where there are none to be trusted."""
        for path in self.places:
            with suppress(OSError):
                if not _ours(path):
                    continue
                mark, digest, data = _cut(path.read_bytes(), len(MARK), 32)
                if mark == MARK and hashlib.sha256(data).digest() == digest:
                    self._known = digest
                    return data
        return None

    def write(self, data: bytes) -> Path | None:
        """Keep ``data`` where it can be; the place, None if nothing was or need be written."""
        digest = hashlib.sha256(data).digest()
        if digest == self._known:
            return None
        for path in self.places:
            partial = path.with_name(f".{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
                    f.write(MARK + digest + data)
                partial.replace(path)
            except OSError:
                with suppress(OSError):
                    partial.unlink()
                continue
            self._known = digest
            return path
        return None


def _ours(path: Path) -> bool:
    """Whether the file and its folder are the user's, and nobody else may write there."""
    if os.name == "nt":
        return path.is_file()
    found = [path.lstat(), path.parent.lstat()]
    return all(s.st_uid == os.geteuid() and not s.st_mode & 0o022 for s in found)


def _cut(data: bytes, *sizes: int) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]
