"""Artifacts: the folder a build makes, its manifest, and how it is written and checked."""

from __future__ import annotations

from .manifest import FORMAT, MIN_FORMAT, FileEntry, Manifest
from .verify import manifest_in, open_artifact, read_manifest
from .write import Artifact, ArtifactWriter

__all__ = [
    "FORMAT",
    "MIN_FORMAT",
    "Artifact",
    "ArtifactWriter",
    "FileEntry",
    "Manifest",
    "manifest_in",
    "open_artifact",
    "read_manifest",
]
