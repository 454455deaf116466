"""JSON of a model's folder, which anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read_json"]


def read_json(file: Path) -> Any:
    """What a file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON in UTF-8, or is nested deeper than Python goes.
    """
    try:
        return json.loads(file.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError(str(error)) from error
