"""Which code of ours builds: versions are few, and commits between them many."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import lepton_passes
import lepton_plugins
from lepton_compile.artifact.write import file_entry

__all__ = ["own_code"]

PACKAGES = (
    Path(__file__).parents[1],
    Path(str(lepton_passes.__file__)).parent,
    Path(str(lepton_plugins.__file__)).parent,
)
ENDINGS = frozenset({".py", ".cpp", ".h"})


@cache
def own_code() -> str:
    """SHA-256 of all files of our packages that something is built with."""
    digest = hashlib.sha256()
    for home in PACKAGES:
        files = {p.relative_to(home).as_posix(): p for p in home.rglob("*") if p.suffix in ENDINGS}
        for name in sorted(files):
            content = file_entry(files[name]).sha256
            digest.update(f"{home.name}/{name} {content}\n".encode())
    return digest.hexdigest()
