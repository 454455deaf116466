"""lepton-compile: time to capture a model of a given depth, no weights involved."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from protocol import serve


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Capture the folder's configuration with ``layers`` layers; a small one first warms up."""
    from lepton_compile.export.export import export
    from lepton_compile.export.source import resolve

    def seconds(layers: int) -> float:
        with tempfile.TemporaryDirectory() as name:
            _configuration(Path(job["folder"]), Path(name), layers)
            begin = time.perf_counter()
            export(resolve(name, Path(name)), "text-generation", weights=False)
            return time.perf_counter() - begin

    seconds(6)
    return {"trace_s": seconds(job["layers"])}


def _configuration(folder: Path, into: Path, layers: int) -> None:
    """The folder's config.json, deeper or shallower: its pattern of layer kinds goes on.

    The weights are a safetensors file without tensors: capturing reads none.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kinds = config["layer_types"]
    config["num_hidden_layers"] = layers
    config["layer_types"] = [kinds[number % len(kinds)] for number in range(layers)]
    (into / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (into / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")


if __name__ == "__main__":
    serve(measure=measure)
