"""``lepton-compile plugins``: the kernels of our own."""

from __future__ import annotations

from typing import Any

import click

from lepton_compile.cli.output import console, emit_json, json_option, table

__all__ = ["plugins"]

# Files of a plugin's folder -> what they are for.
FACES = {
    "plugin_v3.py": "trt-rtx and trt (IPluginV3)",
    "plugin_qdp.py": "trt (ahead of time)",
    "launcher.py": "Python (launcher)",
    "csrc": "ort-cpu (custom operators)",
}


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """List the kernels of our own that engines can use."""
    from lepton_plugins.spec import PLUGINS

    found = [_described(name) for name in PLUGINS]
    if as_json:
        emit_json(found)
        return
    for entry in found:
        rows = [
            ("op", entry["op"]),
            ("inputs", ", ".join(entry["inputs"])),
            ("outputs", ", ".join(entry["outputs"])),
            ("types", ", ".join(entry["dtypes"])),
            ("types of caches", ", ".join(entry["cache_dtypes"])),
            ("attributes", ", ".join(entry["attributes"])),
            ("runs in", ", ".join(entry["runtimes"])),
            ("tolerance", ", ".join(f"{k} {v}" for k, v in entry["tolerance"].items())),
        ]
        console().print(
            table(f"Plugin {entry['name']}", ("what", "value"), [r for r in rows if r[1]])
        )


def _described(name: str) -> dict[str, Any]:
    """A plugin in JSON: what its spec says, and the runtimes that its files are for."""
    from importlib.resources import files

    from lepton_plugins.spec import plugin_spec

    spec = plugin_spec(name)
    there = {each.name for each in files("lepton_plugins").joinpath(name).iterdir()}
    aliased = {output.alias for output in spec.outputs} - {None}
    caches = [tensor for tensor in spec.inputs if tensor.name in aliased]
    others = [tensor for tensor in spec.outputs if tensor.alias is None]
    return {
        "name": name,
        "op": f"{spec.namespace}::{spec.name}, version {spec.version}",
        "inputs": [t.name + (" (optional)" if t.optional else "") for t in spec.inputs],
        "outputs": [t.name + (f" (in {t.alias})" if t.alias else "") for t in spec.outputs],
        "dtypes": sorted({dtype for tensor in others for dtype in tensor.dtypes}),
        "cache_dtypes": list(dict.fromkeys(d for tensor in caches for d in tensor.dtypes)),
        "attributes": {a.name: a.meaning for a in spec.attributes},
        "runtimes": [what for file, what in FACES.items() if file in there],
        "tolerance": {
            dtype: f"{each.absolute:g} + {each.relative:g} of the value"
            for dtype, each in spec.tolerance.items()
        },
    }
