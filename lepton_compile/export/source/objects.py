"""The small JSON files of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.json_file import read_json

__all__ = ["COMPARE", "HINT", "read_object"]

COMPARE = "Compare it with the one that the model was released with."
HINT = "Download it again, or compare it with the one that the model was released with."


def read_object(file: Path) -> dict[str, Any]:
    """What a file holds; nothing where there is none. Raises SourceError."""
    if not file.is_file():
        return {}
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{file.name} cannot be read.", where=str(file), found=str(error), hint=HINT
        ) from error
    if not isinstance(found, dict):
        raise SourceError(
            f"{file.name} is not an object.", where=str(file), found=f"{found!r:.60}", hint=HINT
        )
    return found
