"""``manifest.json``: what an artifact is, in one document that vouches for every file.

Standard library only. ``FORMAT.md`` describes the document; ``FORMAT`` and ``MIN_FORMAT`` are the
two numbers that decide whether a loader may read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from lepton_compile.errors import ArtifactError

__all__ = [
    "FORMAT",
    "MANIFEST_FILE",
    "MIN_FORMAT",
    "PAGE_FILE",
    "REPORT_FILE",
    "UNKNOWN_LENGTH",
    "UNSIGNED_FILES",
    "FileEntry",
    "Manifest",
]

FORMAT = 1
"""The format this version writes."""

MIN_FORMAT = 1
"""The oldest format this version reads."""

MANIFEST_FILE = "manifest.json"

UNKNOWN_LENGTH = 1 << 20
"""Where ``sequence`` ends when nothing is known of it: more than any model takes."""

REPORT_FILE, PAGE_FILE = "report.json", "report.html"
# Written after the manifest, for people; no engine is loaded from them.
UNSIGNED_FILES = frozenset({MANIFEST_FILE, REPORT_FILE, PAGE_FILE})


_ENTRIES = {
    "inputs": ("name", "dtype", "shape", "optional"),
    "outputs": ("name", "dtype", "shape"),
    "engines": ("target", "model", "files", "requires"),
}


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 (hex) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The document as data; see ``FORMAT.md`` for each field."""

    task: str
    model: Mapping[str, Any]
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    ranges: Mapping[str, Any]
    engines: tuple[Mapping[str, Any], ...]
    cache: Mapping[str, Any] | None = None
    generation: Mapping[str, Any] | None = None
    labels: Mapping[str, str] | None = None
    score: str | None = None
    embedding: Mapping[str, Any] | None = None
    image: Mapping[str, Any] | None = None
    tokenizer: Mapping[str, Any] | None = None
    demands: Mapping[str, Any] | None = None
    lock: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    lepton: str = ""
    format: int = FORMAT
    min_format: int = MIN_FORMAT

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without the digest; of pictures only where a model sees."""
        document = dict(asdict(self))
        if self.image is None:
            del document["image"]
        return document

    def digest(self) -> str:
        """SHA-256 of the canonical JSON: sorted keys, no spaces."""
        return _digest(self.as_dict())

    def to_json(self) -> str:
        """The file's text, with its own digest."""
        document = {**self.as_dict(), "digest": self.digest()}
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Parse and check the document.

        Raises:
            ArtifactError: not JSON, another format, a missing or unknown field, a wrong digest.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArtifactError("the manifest is not JSON", found=str(error)) from error
        if not isinstance(document, dict):
            raise ArtifactError("the manifest is not an object")
        _check_format(document)
        digest = document.pop("digest", None)
        if digest != _digest(document):
            raise ArtifactError("the manifest does not match its own digest: it was changed")
        return cls(**_fields(document))


def _check_format(document: Mapping[str, Any]) -> None:
    found, least = document.get("format"), document.get("min_format")
    if type(found) is not int or type(least) is not int:
        raise ArtifactError("the manifest names no format")
    if least > FORMAT or found < MIN_FORMAT:
        raise ArtifactError(
            "the artifact has a format that this version does not read",
            found=f"format {found}, readable from {least}",
            available=[f"formats {MIN_FORMAT} to {FORMAT}"],
            hint="update lepton-compile, or build the artifact again",
        )


def _fields(document: dict[str, Any]) -> dict[str, Any]:
    """What the class takes; a newer format may say more, which an older reader passes over."""
    known = {f.name: f for f in fields(Manifest)}
    needed = [name for name, f in known.items() if f.default is f.default_factory is MISSING]
    missing = [name for name in [*needed, "files"] if name not in document]
    unknown = sorted(document.keys() - known) if document["format"] <= FORMAT else []
    document = {name: value for name, value in document.items() if name in known}
    if missing or unknown:
        raise ArtifactError(
            "the manifest has other fields than its format",
            found=", ".join([*(f"no {n}" for n in missing), *(f"unknown {n}" for n in unknown)]),
        )
    try:
        document["files"] = {name: FileEntry(**entry) for name, entry in document["files"].items()}
        for name, keys in _ENTRIES.items():
            document[name] = tuple(document[name])
            if absent := [key for key in keys for entry in document[name] if key not in entry]:
                raise ArtifactError(
                    "the manifest is malformed", where=name, found=f"no {', '.join(absent)}"
                )
    except (AttributeError, TypeError) as error:
        raise ArtifactError("the manifest is malformed", found=str(error)) from error
    return document


def _digest(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
