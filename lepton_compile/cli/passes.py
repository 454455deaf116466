"""``lepton-compile passes``: the catalog of graph passes."""

from __future__ import annotations

from typing import Any

import click

from lepton_compile.cli.output import console, emit_json, json_option, table

__all__ = ["passes"]


@click.command()
@json_option
def passes(as_json: bool) -> None:
    """List the graph passes in the order they run."""
    from lepton_passes.catalog import CATALOG

    entries: list[dict[str, Any]] = [
        {
            "name": entry.make.name,
            "summary": entry.make.summary,
            "targets": list(entry.targets),
            "changes_numbers": entry.make.changes_numbers,
            "counts_as": entry.make.counts_as,
        }
        for entry in CATALOG
    ]
    if as_json:
        emit_json(entries)
        return
    rows = [(e["name"], _targets(e["targets"]), _what(e)) for e in entries]
    console().print(table("Passes, in order", ("pass", "targets", "what"), rows))


def _what(entry: dict[str, Any]) -> str:
    """What it does, and the name by which ``passes.expect`` counts it where that is another."""
    other = entry["counts_as"]
    return f"{entry['summary']} (counts as {other})" if other else entry["summary"]


def _targets(names: list[str]) -> str:
    """The targets in few words: a family by its prefix."""
    from lepton_compile.recipe.schema import TENSORRT

    families = {"ort*": ("ort-cpu", "ort-cuda"), "trt*": TENSORRT}
    for family, members in families.items():
        if set(members) <= set(names):
            names = [family, *(name for name in names if name not in members)]
    return ", ".join(names) or "all"
