"""What is other than when an artifact was built: versions, compiler, processor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lepton_compile.artifact import Manifest

__all__ = ["Changes", "changes", "hint_of"]

Changes = Mapping[str, tuple[str, str]]
"""What it is: as it was, as it is."""

NONE = "none"
OURS = "lepton-compile"
COMPUTED = ("processor", "features")
"""The last bits of sums over a sample follow from these, and with them what is fitted to it."""

BUG = "nothing that is recorded is other than it was: report it, for this is a bug"


def changes(then: Manifest, now: Manifest) -> Changes:
    """What the manifests of two builds of the same bytes may differ in, where they do."""
    was, became = dict(_facts(then)), dict(_facts(now))
    names = [*was, *(name for name in became if name not in was)]
    pairs = {name: (was.get(name, NONE), became.get(name, NONE)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def hint_of(found: Changes) -> str:
    """What to do where bytes are not the same, by what is other."""
    if not found:
        return BUG
    told = "; ".join(f"{name} was {was} and is {now}" for name, (was, now) in found.items())
    pins = [f"{name}=={was}" for name, (was, _) in found.items() if _is_package(name, was)]
    ways = [f"pip install {' '.join(pins)}"] if pins else []
    ways += ["build on such a processor"] if found.keys() & {*COMPUTED} else []
    return f"{told}: {', and '.join(ways)}" if ways else told


def _is_package(name: str, version: str) -> bool:
    return name not in (OURS, *COMPUTED) and " " not in name and version != NONE


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield from manifest.tools.items()
    lock: Mapping[str, Any] = manifest.lock
    for engine in manifest.engines:
        if compiler := (engine.get("kernels") or {}).get("compiler"):
            yield f"compiler of {engine['target']}", compiler
    if lock.get("code"):
        yield f"code of {OURS}", str(lock["code"])[:12]
    if lock.get("revision"):
        yield "revision of the model", str(lock["revision"])
    if lock.get("calibration"):
        yield "sample that is fitted to", str(lock["calibration"])[:12]
    for target, names in (lock.get("passes") or {}).items():
        yield f"passes of {target}", ", ".join(map(str, names))
    for name in COMPUTED:
        if value := (lock.get("machine") or {}).get(name):
            yield name, value if isinstance(value, str) else " ".join(value)
