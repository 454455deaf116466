"""The small JSON files of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError

__all__ = ["read_object"]


def read_object(file: Path) -> dict[str, Any]:
    """What a file holds; nothing where there is none. Raises SourceError."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(
            f"{file.name} cannot be read.", where=str(file), found=str(error)
        ) from error
    if not isinstance(found, dict):
        raise SourceError(f"{file.name} is not an object.", where=str(file))
    return found
