"""Files of an artifact that will be run as code."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_compile.runtime.loader_guard import refuse

__all__ = ["checked_bytes"]


def checked_bytes(root: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    """The file's bytes, and no others than those that were hashed: for code that will be run."""
    refuse(name not in manifest["files"], f"{name} is used without a digest in manifest.json")
    data = (root / name).read_bytes()
    wrong = hashlib.sha256(data).hexdigest() != manifest["files"][name]["sha256"]
    refuse(wrong, f"{name} is damaged: its SHA-256 is not the one in manifest.json")
    return data
