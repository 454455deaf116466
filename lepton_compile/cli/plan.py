"""``lepton-compile plan``: what a build would do, from the configuration or an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
from rich.console import RenderableType

from lepton_compile.cli.display import watching
from lepton_compile.cli.output import (
    bytes_text,
    clean,
    counts_text,
    emit_json,
    json_option,
    seconds_text,
    show,
    stdout_for_json_only,
    table,
)
from lepton_compile.cli.recipe_options import build_arguments, build_options, recipe_options
from lepton_compile.cli.report_view import declined_table

__all__ = ["plan"]


@click.command()
@recipe_options
@build_options
@json_option
def plan(
    output: str | None, no_check: bool, no_verify: bool, as_json: bool, **options: Any
) -> None:
    """Predict ops, passes, disk, memory and time of a build. Builds nothing, and reads no weights
    but those of an ONNX file."""
    arguments = build_arguments(options.pop("recipe"), **options)
    arguments |= {"output": output, "check": not no_check, "verify": not no_verify}
    with stdout_for_json_only(as_json), watching(quiet=as_json) as progress:
        from lepton_compile.api import plan as make_plan

        data = clean(make_plan(**arguments, progress=progress))
    if as_json:
        emit_json(data)
        return
    assert isinstance(data, Mapping)
    show(_parts(data))


def _parts(data: Mapping[str, Any]) -> Iterator[RenderableType]:
    facts = [
        ("model", data["model"]),
        ("architecture", data["architecture"]),
        ("task", data["task"]),
        ("parameters", f"{data['parameters']:,}"),
        ("captured", data["layers"]),
        *([("a picture", data["pictures"])] if data["pictures"] else ()),
        ("output", f"{data['output']}, {bytes_text(_disk(data))}"),
    ]
    yield table("Plan", ("what", "value"), facts)
    yield table("Estimates", ("part", "time>", "peak memory>"), list(_estimates(data)))
    for engine in data["engines"]:
        yield from _engine(engine, f" for {engine['target']}")
    for note in data["notes"]:
        yield f"Note: {note}"


def _disk(data: Mapping[str, Any]) -> int:
    return sum(size for engine in data["engines"] for size in engine["files"].values())


def _estimates(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    yield "capture and build", *_figures(data)
    for name, what in (("check", "check of each pass"), ("verify", "verification")):
        yield what, *(_figures(data[name]) if data[name] else ("left out", ""))


def _figures(part: Mapping[str, Any]) -> tuple[str, str]:
    return seconds_text(part["seconds"]), bytes_text(part["peak_memory_bytes"])


def _engine(engine: Mapping[str, Any], of: str) -> Iterator[RenderableType]:
    files = [(name, bytes_text(size)) for name, size in engine["files"].items()]
    yield table(f"Files{of} in {engine['precision']}", ("file", "size>"), files)
    if engine["passes"]:
        yield table(f"Passes{of} that fire", ("pass", "times>"), list(engine["passes"].items()))
    total = sum(engine["ops"].values())
    yield table(f"Ops{of}: {total:,}", ("op and count",), [(counts_text(engine["ops"]),)])
    if engine["missing"]:
        yield table(f"Lacking{of}", ("why",), [(why,) for why in engine["missing"]])
    passes = [{"name": r["pass"], "refusals": [r]} for r in engine["refusals"]]
    yield from declined_table(passes, of)
