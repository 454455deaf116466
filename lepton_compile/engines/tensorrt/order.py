"""What the child process is asked to build: plain data, handed over as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Order", "Profile"]


@dataclass(frozen=True)
class Profile:
    """Shapes for which the engine is optimized.

    Attributes:
        name: ``prefill``, ``decode``, ``joint`` for both, or ``all``.
        min, opt, max: input name -> shape.
        values: input name -> (min, opt, max) of its value, for an input that other shapes are
            computed from.
    """

    name: str
    min: dict[str, list[int]]
    opt: dict[str, list[int]]
    max: dict[str, list[int]]
    values: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """One engine to build.

    Attributes:
        module, libraries: of the ``Flavour``.
        model: ONNX file, its weights beside it.
        plan: file to write; the caller renames it.
        links: private folder for names that the library looks for and its wheel lacks.
        profiles: at least one.
        capabilities: compute capabilities such as ``8.9``; empty leaves the choice to the library.
        hardware: name of a hardware compatibility level, for GPUs other than the one that builds.
        plugins: folders with a ``plugin_runtime.py``, for nodes outside the library's own ops.
        baked: architecture, such as 90, of the kernels that the plan takes in; None where it has
            none.
        timing_cache: file that is read if it exists and written after the build.
    """

    module: str
    libraries: str
    model: str
    plan: str
    links: str
    profiles: list[Profile]
    capabilities: list[str] = field(default_factory=list)
    hardware: str = "NONE"
    plugins: list[str] = field(default_factory=list)
    baked: int | None = None
    timing_cache: str | None = None

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Order:
        """What ``write`` wrote."""
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        data["profiles"] = [Profile(**each) for each in data["profiles"]]
        return cls(**data)
