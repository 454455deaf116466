"""``lepton-compile targets``: what this machine can build and run, and why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import RenderableType
from rich.text import Text

from lepton_compile.cli.output import console, emit_json, json_option, table

if TYPE_CHECKING:
    from lepton_compile.engines.probe import TargetState

__all__ = ["target_lines", "target_states", "targets"]


def target_states() -> list[TargetState]:
    """Every target of the recipe schema, looked up without importing a runtime."""
    from lepton_compile.engines import TARGETS
    from lepton_compile.engines.probe import probe

    return [probe(name) for name in TARGETS]


@click.command()
@json_option
def targets(as_json: bool) -> None:
    """Show what this machine can build and run, why not, and what to install."""
    states = target_states()
    if as_json:
        emit_json([asdict(state) for state in states])
        return
    out = console()
    for part in target_lines(states):
        # A command that was broken into lines here could not be copied in one piece.
        out.print(part, soft_wrap=isinstance(part, Text))


def target_lines(states: Sequence[TargetState]) -> Iterator[RenderableType]:
    """The table; the device, which is the same for all that have one; the commands."""
    rows = [
        (s.name, _yes(s.builds), _yes(s.runs), s.version or "-", s.reason or "ready")
        for s in states
    ]
    yield table("Targets", ("target", "builds", "runs", "runtime", "state"), rows)
    device = next((s.device for s in states if s.device), None)
    yield Text(f"GPU: {device or 'none that a driver on this machine knows'}")
    commands = [(s.name, s.install) for s in states if s.install]
    if commands:
        yield Text("\nTo install what is missing:")
    for name, command in commands:
        yield Text.assemble((f"  {name:<9}", "bold"), (command, "green"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
