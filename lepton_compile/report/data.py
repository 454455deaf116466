"""What a report holds, gathered from the stages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lepton_compile.report.pictures import pictures_in

__all__ = ["REPORT_FORMAT", "report_data"]

REPORT_FORMAT = 2


def report_data(
    manifest: Mapping[str, Any],
    *,
    seconds: Mapping[str, float],
    capture: Mapping[str, Any],
    passes: Sequence[Mapping[str, Any]],
    choices: Mapping[str, Mapping[str, Any]] | None = None,
    builders: Mapping[str, Mapping[str, Any]] | None = None,
    tactics: Sequence[Mapping[str, Any]] = (),
    verify: Mapping[str, Any] | None = None,
    gates: Sequence[Mapping[str, Any]] = (),
    also_verified: Sequence[Mapping[str, Any]] = (),
    remarks: Sequence[str] = (),
    failure: Mapping[str, Any] | None = None,
    bench: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One JSON-ready document.

    Args:
        manifest: the artifact's manifest as data.
        seconds: wall time by stage, in order.
        capture: how the model was captured.
        passes: the pipelines' reports, one entry per pass and ``target``.
        choices: bits of weights that were chosen by numbers, by target.
        builders: what the builder of each target has to say: layer table, log.
        tactics: by ``target``, kernels that were chosen by what was measured, and the figures.
        verify: the verification's report; None when it was left out.
        gates: the checks, passed or not.
        also_verified: reports of further engines, each with its ``target`` and ``gates``.
        remarks: what was left out that is done by default, and why.
        failure: the missed demand or failed pass as data, where there is no artifact because of it.
        bench: measurements, where some were taken.
    """
    files = _files(manifest)
    data = {
        "format": REPORT_FORMAT,
        "model": manifest["model"],
        "task": manifest["task"],
        "engines": manifest["engines"],
        "ranges": manifest["ranges"],
        "pictures": pictures_in(manifest),
        "stages": [{"name": name, "seconds": round(s, 3)} for name, s in seconds.items()],
        "seconds": round(sum(seconds.values()), 3),
        "capture": capture,
        "passes": passes,
        "choices": choices or {},
        "builders": builders or {},
        "tactics": list(tactics),
        "verify": verify,
        "gates": list(gates),
        "also_verified": list(also_verified),
        "remarks": list(remarks),
        "failure": failure,
        "bench": bench,
        "files": files,
        "bytes": sum(file["size"] for file in files),
        "versions": manifest.get("tools", {}),
        "lock": manifest.get("lock", {}),
    }
    return {name: _plain(value) for name, value in data.items()}


def _files(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Largest first."""
    files = [
        {"name": name, "size": entry["size"], "sha256": entry["sha256"]}
        for name, entry in manifest["files"].items()
    ]
    return sorted(files, key=lambda file: -file["size"])


def _plain(value: Any) -> Any:
    """Tuples as lists; infinity and NaN, for which JSON has no word, as None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)
