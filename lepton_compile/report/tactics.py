"""What a report says of kernels that were chosen by what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["tactic_sections"]


def tactic_sections(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One section an engine: ``target``, ``title``, ``chosen``, ``phases``, ``rows``, ``left``.

    ``chosen`` has layer, kernel and why. A row is a candidate: its layer (once), its name, a time
    for each phase, error, gain over the usual kernel, and what became of it. ``left`` has the
    layers that were not measured, by reason.
    """
    return [_section(entry) for entry in entries if entry["layers"] or entry["unmeasured"]]


def _section(entry: Mapping[str, Any]) -> dict[str, Any]:
    machine, phases = entry["machine"], entry["phases"]
    left: dict[str, list[str]] = {}
    for each in entry["unmeasured"]:
        left.setdefault(each["reason"], []).append(each["layer"])
    return {
        "target": entry["target"],
        "title": f"for {entry['objective']}, on one thread of {machine['processor']}",
        "chosen": [(each["layer"], each["name"], each["why"]) for each in entry["layers"]],
        "phases": [f"{phase['rows']} row{'s' if phase['rows'] > 1 else ''}" for phase in phases],
        "rows": [row for layer in entry["layers"] for row in _rows(layer, phases)],
        "left": [f"{why}: {'; '.join(layers)}" for why, layers in left.items()],
    }


def _rows(layer: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for each in layer["candidates"]:
        seconds = [_microseconds(each["seconds"].get(str(phase["rows"]))) for phase in phases]
        gain = f"{each['gain']:.2f}" if each["gain"] else ""
        off = "not finite" if each["error"] is None else f"{each['error']:.2%}"
        rows.append((each["name"], seconds, off, gain, _verdict(layer, each)))
    for each in layer["failed"]:
        rows.append((each["name"], [""] * len(phases), "", "", f"left out: {each['reason']}"))
    return [(layer["layer"] if n == 0 else "", *row) for n, row in enumerate(rows)]


def _verdict(layer: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    if candidate["kernel"] == layer["kernel"]:
        return f"taken: {layer['why']}"
    return str(candidate["vetoed"] or "")


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e6:,.0f} µs"
