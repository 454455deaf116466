"""What is checked before anything is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = [
    "FORMAT",
    "MIN_FORMAT",
    "LoaderError",
    "UnfitError",
    "check_digests",
    "manifest_of",
    "refuse",
]

FORMAT, MIN_FORMAT = 1, 1
FIELDS = ("task", "inputs", "outputs", "ranges", "cache", "generation", "embedding", "labels")


class LoaderError(Exception):
    """The artifact is not intact, or a call cannot be carried out as written."""


class UnfitError(LoaderError):
    """An engine is intact but cannot run on this machine; another of the artifact may."""


def refuse(wrong: Any, why: str, error: type[LoaderError] = LoaderError) -> None:
    """Raise ``error`` with the reason ``why`` if something is ``wrong``."""
    if wrong:
        raise error(why)


def manifest_of(root: Path) -> dict[str, Any]:
    """The manifest in ``root``, once it holds, but for digests of what only engines list."""
    refuse(not (root / "manifest.json").is_file(), f"{root} is no artifact: no manifest.json")
    manifest: dict[str, Any] = json.loads((root / "manifest.json").read_bytes())
    bad = manifest["min_format"] > FORMAT or manifest["format"] < MIN_FORMAT
    refuse(bad, f"format {manifest['format']}; this loader reads {MIN_FORMAT} to {FORMAT}")
    signed = {key: value for key, value in manifest.items() if key != "digest"}
    canonical = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    bad = hashlib.sha256(canonical).hexdigest() != manifest["digest"]
    refuse(bad, "manifest.json is damaged: it does not match its own digest")
    itemgetter(*FIELDS)(manifest)
    for engine in manifest["engines"]:
        itemgetter("target", "requires")(engine)
    for name, entry in manifest["files"].items():
        parts, path = PurePosixPath(name.replace("\\", "/")), root / name
        bad = parts.is_absolute() or ".." in parts.parts or path.drive != root.drive
        refuse(bad, f"manifest.json names a file outside the artifact: {name}")
        refuse(not path.is_file(), f"{name} is missing from {root}")
        refuse(not path.resolve().is_relative_to(root), f"{name} links to outside the artifact")
        bad = path.stat().st_size != entry["size"]
        refuse(bad, f"{name} is damaged: {path.stat().st_size} bytes, not {entry['size']}")
    engines = {n for e in manifest["engines"] for n in [e["model"], *e["files"]]}
    used = engines | {name for name in (manifest["tokenizer"] or {}).values() if name}
    unlisted = sorted(used - manifest["files"].keys())
    refuse(unlisted, f"manifest.json uses {unlisted} without giving their digests")
    check_digests(root, manifest, manifest["files"].keys() - engines)
    return manifest


def check_digests(root: Path, manifest: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse if one of the files has another SHA-256 than the manifest says."""
    for name in sorted(names):
        with (root / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        wrong = found != manifest["files"][name]["sha256"]
        refuse(wrong, f"{name} is damaged: its SHA-256 is not the one in manifest.json")
