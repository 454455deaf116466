"""Compiled kernels on disk: a cache by content, and folders with an index that an artifact carries.

    <folder>/kernels.json                   what is there: arguments, threads, memory, SHA-256
    <folder>/<set>/<kernel>-<arch>.cubin    machine code
    <folder>/<set>/<kernel>-<arch>.ptx      for devices of the same kind that came later

Nothing in a folder depends on when, where or by whom it was written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.compile import Compiled

__all__ = [
    "FORMAT",
    "INDEX",
    "cache_folder",
    "cached",
    "content_key",
    "kept",
    "record",
    "user_cache",
    "write_folder",
    "write_whole",
]

FORMAT = 1
INDEX = "kernels.json"


def user_cache() -> Path:
    """The user's cache for lepton-compile; not created.

    A user without a home, as containers have them, has none: nothing can be written in what is
    returned then, and whoever asks does without, as where a home is read-only.
    """
    folder = os.environ.get("XDG_CACHE_HOME")
    try:
        base = Path(folder) if folder else Path.home() / ".cache"
    except RuntimeError:
        base = Path(os.devnull)
    return base / "lepton-compile"


def cache_folder() -> Path:
    """Where compiled kernels are kept between builds."""
    return user_cache() / "kernels"


def content_key(**content: Any) -> str:
    """A digest of everything that the result of a compilation depends on."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def cached(key: str, make: Callable[[], Compiled], folder: Path | None) -> Compiled:
    """The kernel kept under ``key``, or the one that ``make`` gives, kept from now on."""

    def encoded() -> bytes:
        made = make()
        return json.dumps(asdict(made) | {"cubin": made.cubin.hex()}).encode()

    data = json.loads(kept(key, encoded, folder))
    data["parameters"] = tuple(map(tuple, data["parameters"]))
    return Compiled(**data | {"cubin": bytes.fromhex(data["cubin"])})


def kept(key: str, make: Callable[[], bytes], folder: Path | None) -> bytes:
    """The bytes kept under ``key``, or those that ``make`` gives, kept from now on.

    ``folder`` None: nothing is kept. An entry that cannot be read or is damaged is made anew; where
    none can be written, the next build makes it again.
    """
    if folder is None:
        return make()
    path = folder / key[:2] / key
    with suppress(OSError, ValueError):
        digest, _, data = path.read_bytes().partition(b"\n")
        if digest.decode() == _digest(data):
            return data
    made = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{_digest(made)}\n".encode() + made)
    return made


def record(kernel: Compiled, stem: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The kernel's entry in an index, and its files by name; names begin with ``stem``."""
    files = {f"{stem}.cubin": kernel.cubin, f"{stem}.ptx": kernel.ptx.encode()}
    entry: dict[str, Any] = {
        name: value for name, value in asdict(kernel).items() if name not in ("ptx", "cubin")
    }
    for name, data in files.items():
        kind = name.rsplit(".", 1)[1]
        entry[kind] = {"file": name, "sha256": _digest(data), "size": len(data)}
    return entry, files


def write_folder(folder: Path, index: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Write ``files`` and their index into ``folder``, which appears whole or not at all.

    Raises:
        PluginError: the folder is there and holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / INDEX).is_file():
        raise PluginError("the folder holds something else", where=str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, data in {**files, INDEX: _json(index)}.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(data)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _json(index: Mapping[str, Any]) -> bytes:
    return (json.dumps({"format": FORMAT, **index}, indent=1, sort_keys=True) + "\n").encode()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step: it is there as a whole, or as it was."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
