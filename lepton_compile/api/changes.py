"""What is other than when an artifact was built: versions, compiler, processor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lepton_compile.artifact import Manifest

__all__ = ["TOOLS", "Changes", "changes", "hint_of"]

Changes = Mapping[str, tuple[str, str]]
"""What it is: as it was, as it is."""

TOOLS = ("torch", "transformers", "onnx", "onnx-ir", "numpy", "onnxruntime", "gguf", "safetensors")
"""Packages that a build runs through, whose versions a manifest has."""

NONE = "none"
VERSION = re.compile(r"[\w.+!-]+", re.ASCII)
PROCESSOR, FEATURES = COMPUTED = ("processor", "features")
"""The last bits of sums over a sample follow from these, and with them what is fitted to it."""

BUG = (
    "nothing that is recorded is other than it was; where lepton-compile is of the same commit, "
    "report it: this is a bug"
)


def changes(then: Manifest, now: Manifest) -> Changes:
    """What the manifests of two builds of the same bytes may differ in, where they do."""
    was, became = dict(_facts(then)), dict(_facts(now))
    names = [*was, *(name for name in became if name not in was)]
    pairs = {name: (was.get(name, NONE), became.get(name, NONE)) for name in names}
    old, new = then.lock.get("passes") or {}, now.lock.get("passes") or {}
    for target in {**old, **new}:
        pairs[f"passes of {target}"] = _apart(old.get(target, []), new.get(target, []))
    code, ours = then.lock.get("code"), now.lock.get("code")
    if code and ours:  # manifests had neither this nor a machine at first
        pairs["code of lepton-compile"] = (code[:12], ours[:12])
    machine, this = then.lock.get("machine"), now.lock.get("machine")
    if machine and this:
        pairs[PROCESSOR] = (machine.get(PROCESSOR) or NONE, this.get(PROCESSOR) or NONE)
        pairs[FEATURES] = _apart(machine.get(FEATURES) or [], this.get(FEATURES) or [])
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
    """Whether pip is to bring it back: the command is copied, and anybody can write a manifest."""
    return name in TOOLS and version != NONE and VERSION.fullmatch(version) is not None


def _apart(was: Sequence[str], became: Sequence[str]) -> tuple[str, str]:
    """What only one of two lists has, of dozens of names; or what stands elsewhere in it."""
    gone = [name for name in was if name not in became]
    added = [name for name in became if name not in was]
    if not gone and not added:
        moved = [pair for pair in zip(was, became, strict=False) if pair[0] != pair[1]]
        gone, added = [before for before, _ in moved], [after for _, after in moved]
    return " ".join(gone) or NONE, " ".join(added) or NONE


def _facts(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield from manifest.tools.items()
    lock: Mapping[str, Any] = manifest.lock
    for engine in manifest.engines:
        if compiler := (engine.get("kernels") or {}).get("compiler"):
            yield f"compiler of {engine['target']}", compiler
    if lock.get("revision"):
        yield "revision of the model", str(lock["revision"])
    if lock.get("calibration"):
        yield "sample that is fitted to", str(lock["calibration"])[:12]
