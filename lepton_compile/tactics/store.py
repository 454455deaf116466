"""What was measured, kept for later builds on the same machine.

One JSON file for each machine, beside the folder of compiled kernels:

    <cache>/lepton-compile/tactics/<digest of the machine>.json

It is written whole or not at all. A file that is damaged, of another format or of another machine
is as good as none, and the next build writes it anew.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lepton_compile.tactics.choose import NAMES
from lepton_compile.tactics.machine import Machine
from lepton_compile.tactics.measure import Measured
from lepton_plugins.toolchain.store import cache_folder, content_key, write_whole

__all__ = ["FORMAT", "Store", "tactics_folder"]

FORMAT = 3
"""Of the files: another number where something else is measured, or in another way."""


def tactics_folder() -> Path:
    """Where measurements are kept between builds."""
    return cache_folder().parent / "tactics"


class Store:
    """Measurements of one machine, by what was measured.

    Args:
        folder: of all machines; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None, machine: Machine) -> None:
        self._machine = machine
        key = content_key(format=FORMAT, machine=machine.as_dict())
        self._path = folder / f"{key[:32]}.json" if folder is not None else None

    @classmethod
    def latest(cls, folder: Path, machine: Machine) -> Store:
        """That of the last build on a machine whose library of kernels is not known."""
        for path in sorted(folder.glob("*.json"), key=_age):
            found = _document(path).get("machine")
            kernels = found.get("kernels") if isinstance(found, dict) else None
            store = cls(folder, replace(machine, kernels=str(kernels)))
            if store._path == path:
                return store
        return cls(None, machine)

    def read(self) -> dict[str, Measured]:
        """All that there is."""
        document = _document(self._path) if self._path is not None else {}
        if document.get("format") != FORMAT or document.get("machine") != self._machine.as_dict():
            return {}
        layers = document.get("layers")
        found = {}
        for name, entry in layers.items() if isinstance(layers, dict) else ():
            with suppress(AttributeError, TypeError, ValueError, OverflowError):
                found[name] = _measured(entry)
        return found

    def add(self, measured: Mapping[str, Measured]) -> None:
        """Keep more; where nothing can be written, the next build measures again."""
        if self._path is None or not measured:
            return
        layers = {name: asdict(each) for name, each in {**self.read(), **measured}.items()}
        document = {"format": FORMAT, "machine": self._machine.as_dict(), "layers": layers}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, f"{json.dumps(document, indent=1)}\n".encode())


def _measured(entry: Mapping[str, Any]) -> Measured:
    """Raises TypeError, ValueError, OverflowError or AttributeError where it is none."""
    whole = Measured(**entry)
    seconds = {
        tactic: {int(rows): float(each) for rows, each in times.items()}
        for tactic, times in whole.seconds.items()
    }
    errors = {tactic: float(error) for tactic, error in whole.errors.items()}
    sizes = {tactic: int(size) for tactic, size in whole.bytes.items()}
    numbers = [whole.spread, *sizes.values(), *(n for t in seconds.values() for n in t.values())]
    finite = all(0 < number < math.inf for number in numbers)
    if not finite or not all(error >= 0 for error in errors.values()):
        raise ValueError("a measurement is no positive number")
    failed = {tactic: str(why) for tactic, why in whole.failed.items()}
    if not {whole.usual, *errors, *failed} <= {*NAMES}:
        raise ValueError("an unknown candidate")
    if not {*seconds} == {*sizes} == {*errors}:
        raise ValueError("a candidate without numbers")
    return replace(whole, seconds=seconds, errors=errors, bytes=sizes, failed=failed)


def _document(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _age(path: Path) -> float:
    """Smaller where a file is newer."""
    with suppress(OSError):
        return -path.stat().st_mtime
    return 0.0
