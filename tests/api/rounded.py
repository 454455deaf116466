"""A model in fewer bits, and what its verification found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lepton_compile as lc

__all__ = ["verified"]


def verified(model: Path, precision: str, output: Path) -> dict[str, Any]:
    """The report's ``verify`` of a build compared on 256 tokens."""
    built = lc.build(model=str(model), quantize=precision, output=output, verify={"tokens": 256})
    found: dict[str, Any] = json.loads((built.path / "report.json").read_text())["verify"]
    return found
