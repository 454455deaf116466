"""lepton-compile: how long the emitted loader takes to import, and how long it is."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from protocol import serve

TIMES = 10


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Median of whole processes that import the loader, less those that import nothing."""
    bare, with_loader = [], []
    for _ in range(TIMES):
        bare.append(_seconds("pass", job["work"]))
        with_loader.append(_seconds("import loader", job["work"]))
    spent = statistics.median(with_loader) - statistics.median(bare)
    lines = (Path(job["work"]) / "loader.py").read_text(encoding="utf-8").count("\n")
    return {"import_ms": 1000 * spent, "lines": lines}


def _seconds(program: str, folder: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    serve(measure=measure)
