"""What a benchmark says in the end: where it ran, with what, and its result as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["tell", "where"]


def where(packages: Iterable[str]) -> dict[str, Any]:
    """The machine, and the versions of packages."""
    return {
        "machine": {"processor": platform.processor(), "cores": os.cpu_count()},
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


def tell(result: Mapping[str, Any], path: Path | None) -> None:
    """Write a result as JSON to ``path``; without one, to standard output."""
    text = json.dumps(result, indent=1) + "\n"
    if path is None:
        print(text, end="")
    else:
        path.write_text(text, "utf-8")
