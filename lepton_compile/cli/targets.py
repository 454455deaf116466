"""``lepton-compile targets``: what this machine can build and run, and why not.

Beside the targets stand tools that some engines and exports take: each with what it is for, and the
one command that installs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import click
from rich.console import RenderableType
from rich.text import Text

from lepton_compile.cli.output import console, emit_json, json_option, table

if TYPE_CHECKING:
    from lepton_compile.engines.probe import TargetState

__all__ = ["TOOLS", "Tool", "target_lines", "target_states", "targets", "tool_states"]


@dataclass(frozen=True)
class Tool:
    """Something that is no target, and that a target or an export needs.

    Attributes:
        name: what it is for, as the table names it.
        package: pip package.
        install: the command that installs it.
        version: of what is installed; None without.
    """

    name: str
    package: str
    install: str
    version: str | None = None


TOOLS = (
    Tool("kernels of plugins", "triton", "pip install 'lepton-compile[plugins]'"),
    Tool("export triton", "tritonclient", "pip install 'lepton-compile[serve]'"),
    Tool("running export genai", "onnxruntime-genai", "pip install onnxruntime-genai"),
)


def tool_states() -> list[Tool]:
    """The tools as they are on this machine."""
    from lepton_compile.engines.probe import installed

    return [replace(tool, version=installed(tool.package)) for tool in TOOLS]


def target_states() -> list[TargetState]:
    """Every target of the recipe schema, looked up without importing a runtime."""
    from lepton_compile.engines import TARGETS
    from lepton_compile.engines.probe import probe

    return [probe(name) for name in TARGETS]


@click.command()
@json_option
def targets(as_json: bool) -> None:
    """Show what this machine can build and run, why not, and what to install."""
    states, tools = target_states(), tool_states()
    if as_json:
        found = [{"kind": "target", **asdict(state)} for state in states]
        emit_json([*found, *({"kind": "tool", **asdict(tool)} for tool in tools)])
        return
    out = console()
    for part in target_lines(states, tools):
        # A command that was broken into lines here could not be copied in one piece.
        out.print(part, soft_wrap=isinstance(part, Text))


def target_lines(
    states: Sequence[TargetState], tools: Sequence[Tool] = ()
) -> Iterator[RenderableType]:
    """The tables; the device, which is the same for all that have one; the commands."""
    rows = [
        (s.name, _yes(s.builds), _yes(s.runs), s.version or "-", s.reason or "ready")
        for s in states
    ]
    yield table("Targets", ("target", "builds", "runs", "runtime", "state"), rows)
    device = next((s.device for s in states if s.device), None)
    yield Text(f"GPU: {device or 'none that a driver on this machine knows'}")
    if tools:
        found = [(t.name, t.package, t.version or "not installed") for t in tools]
        yield table("Tools", ("for", "package", "version"), found)
    commands = [(s.name, s.install) for s in states if s.install]
    commands += [(t.package, t.install) for t in tools if t.version is None]
    if commands:
        yield Text("\nTo install what is missing:")
    width = max((len(name) for name, _ in commands), default=0)
    for name, command in commands:
        yield Text.assemble((f"  {name:<{width + 2}}", "bold"), (command, "green"))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
