"""The table of commands; each is imported when it is used."""

from __future__ import annotations

import difflib
from importlib import import_module

import click

__all__ = ["COMMANDS", "LazyGroup"]

COMMANDS = {
    "build": "Compile a model into an artifact.",
    "plan": "Predict what a build would do and cost; builds nothing.",
    "run": "Run an artifact: generate, embed, classify, or arrays in and out.",
    "verify": "Compare an artifact with the fp32 PyTorch model it came from.",
    "rebuild": "Build an artifact again, and prove that the bytes are the same.",
    "bench": "Measure an artifact's speed and memory, next to PyTorch eager.",
    "inspect": "Show an artifact, or any ONNX file.",
    "export": "Write an artifact in the form another server loads.",
    "targets": "What this machine can build and run, and why not.",
    "passes": "The graph passes, in the order they run.",
    "plugins": "The kernels of our own that engines can use.",
    "recipes": "The recipes that come with the package.",
}
"""Command -> one line of help. A command is the function of its name in the file of its name."""


class LazyGroup(click.Group):
    """A group that knows the names and summaries of its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None for a name that is not in the table."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"lepton_compile.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest command named when there is none of this name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{guess} Commands: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table as it stands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
