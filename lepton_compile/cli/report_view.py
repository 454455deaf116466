"""The report of a build as tables: what the passes did and declined, and the verification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from lepton_compile.cli.accuracy_view import verify_tables
from lepton_compile.cli.output import table
from lepton_compile.report import refusal_groups, tactic_sections

__all__ = ["declined_table", "report_parts"]

NODES_SHOWN = 3


def report_parts(report: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What to print of ``report.json``, in order; parts that a report lacks are left out."""
    passes = report.get("passes", ())
    targets = list(dict.fromkeys(p.get("target") for p in passes))
    for target in targets:
        own = [p for p in passes if p.get("target") == target]
        yield from _passes(own, f" for {target}" if len(targets) > 1 else "")
    for section in tactic_sections(report.get("tactics") or ()):
        if section["chosen"]:
            columns = ("layer", "kernel", "why")
            yield table(f"Kernels {section['title']}", columns, section["chosen"])
    for target, choice in report.get("choices", {}).items():
        yield from _choice(target, choice)
    if report.get("verify"):
        yield from verify_tables({**report["verify"], "gates": report.get("gates", ())})
    for other in report.get("also_verified", ()):
        yield from verify_tables(other)
    for remark in report.get("remarks", ()):
        yield f"Note: {remark}"


def _choice(target: str, choice: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What ``quantize: auto`` chose, and what that costs."""
    rows = [
        (k["name"], k["four"] or "", k["eight"] or "", k["kept"] or "", f"{k['estimated']:.2g}")
        for k in choice["kinds"]
    ]
    columns = ("weights", "4 bits>", "8 bits>", "float>", "estimated loss>")
    yield table(f"Bits chosen for {target}", columns, rows)
    yield (
        f"{choice['measure']} on the calibration text: {choice['measured']:.3g} measured, "
        f"{choice['budget']:.3g} allowed, {choice['estimated']:.3g} estimated; "
        f"{choice['bytes'] / 1e6:.0f} MB of weights, {choice['tries']} choices measured"
    )


def _passes(passes: Sequence[Mapping[str, Any]], of: str) -> Iterator[RenderableType]:
    rows = [
        (p["name"], p["fired"], len(p["refusals"]) or "", _error(p.get("error")))
        for p in passes
        if p["fired"] or p["refusals"]
    ]
    if rows:
        columns = ("pass", "fired>", "declined>", "added error>")
        yield table(f"Passes{of}", columns, rows)
    yield from declined_table(passes, of)


def declined_table(passes: Sequence[Mapping[str, Any]], of: str) -> Iterator[RenderableType]:
    """What passes declined, with reason and nodes; nothing where there is nothing."""
    declined = [(g["name"], g["reason"], _nodes(g["nodes"])) for g in refusal_groups(passes)]
    if declined:
        yield table(f"Declined{of}, and why", ("pass", "reason", "node"), declined)


def _nodes(nodes: Sequence[str]) -> str:
    more = [f"and {len(nodes) - NODES_SHOWN} more"] if len(nodes) > NODES_SHOWN else []
    return "\n".join([*nodes[:NODES_SHOWN], *more])


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
