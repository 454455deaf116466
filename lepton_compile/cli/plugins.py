"""``lepton-compile plugins``: the kernels of our own."""

from __future__ import annotations

from importlib.resources import files

import click

from lepton_compile.cli.output import console, emit_json, json_option, table

__all__ = ["plugins"]


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List the kernels of our own that engines can use."""
    found = sorted(
        folder.name
        for folder in files("lepton_plugins").iterdir()
        if folder.joinpath("spec.py").is_file()
    )
    if as_json:
        emit_json([{"name": name} for name in found])
    elif found:
        console().print(table("Plugins", ("plugin",), [(name,) for name in found]))
    else:
        console().print("No plugins in this version: engines use the runtime's own kernels.")
