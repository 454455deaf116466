"""``lepton-compile plan``: what a build would do, from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
from rich.console import RenderableType

from lepton_compile.cli.display import watching
from lepton_compile.cli.output import (
    bytes_text,
    clean,
    console,
    emit_json,
    json_option,
    stdout_for_json_only,
    table,
)
from lepton_compile.cli.recipe_options import build_arguments, recipe_options

__all__ = ["plan"]


@click.command()
@recipe_options
@json_option
def plan(as_json: bool, **options: Any) -> None:
    """Predict ops, passes, disk, memory and time of a build. Reads no weights, builds nothing."""
    arguments = build_arguments(options.pop("recipe"), **options)
    with stdout_for_json_only(as_json), watching(quiet=as_json) as progress:
        from lepton_compile.api import plan as make_plan

        data = clean(make_plan(**arguments, progress=progress))
    if as_json:
        emit_json(data)
        return
    out = console()
    assert isinstance(data, Mapping)
    for part in _parts(data):
        out.print(part)


def _parts(data: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Single values as one table, then a table for each list and each mapping."""
    single = {k: v for k, v in data.items() if not isinstance(v, list | Mapping)}
    yield table("Plan", ("what", "value"), [(_label(k), _text(k, v)) for k, v in single.items()])
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            rows = [(k, _text(f"{key}.{k}", v)) for k, v in value.items()]
            yield table(_label(key).capitalize(), ("what", "value"), rows)
        elif isinstance(value, list) and value:
            yield from _list(_label(key).capitalize(), value)


def _list(title: str, values: list[Any]) -> Iterator[RenderableType]:
    if not all(isinstance(value, Mapping) for value in values):
        yield table(title, ("value",), [(_text("", value),) for value in values])
        return
    columns = list(dict.fromkeys(key for value in values for key in value))
    rows = [[_text(key, value.get(key)) for key in columns] for value in values]
    yield table(title, [_label(column) for column in columns], rows)


def _label(key: str) -> str:
    return key.removesuffix("_bytes").replace("_", " ")


def _text(key: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    counted = any(word in key for word in ("bytes", "memory", "disk", "size"))
    if isinstance(value, int | float) and counted:
        return bytes_text(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_text(key, item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(k, v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
