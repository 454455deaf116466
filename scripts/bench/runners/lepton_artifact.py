"""lepton-compile's artifact through its emitted loader, where lepton-compile is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

__all__ = ["load"]


def load(job: dict[str, Any]) -> Any:
    """The model in the folder ``work``, opened by the ``loader.py`` that lies there."""
    path = Path(job["work"]) / "loader.py"
    spec = importlib.util.spec_from_file_location("emitted_loader", path)
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader.load(path.parent, threads=job["threads"])
