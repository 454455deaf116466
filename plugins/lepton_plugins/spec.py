"""What a plugin's op is, as data: the one thing the passes may read of a plugin.

A plugin keeps its own description as ``SPEC`` in ``<plugin>/spec.py``; ``plugin_spec("attention")``
finds it. Only the standard library is needed to read one.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "CPU_DOMAIN",
    "PLUGINS",
    "Attribute",
    "PluginError",
    "PluginSpec",
    "Tensor",
    "Tolerance",
    "plugin_spec",
]

# Folders that hold a spec.py.
PLUGINS = ("attention", "convolution", "linear", "linear_attention", "normalization")

CPU_DOMAIN = "ai.lepton.cpu"
"""Domain of the operators that we give onnxruntime on the CPU."""


class PluginError(Exception):
    """A plugin cannot do what was asked: what failed, what was found, what would have done.

    The fields are those of ``lepton_compile.errors.LeptonError``, which this package may not
    import; an engine's builder wraps one in the other.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        found: str | None = None,
        available: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.found = found
        self.available = tuple(available)
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.found is not None:
            lines.append(f"  found: {self.found}")
        if self.available:
            lines.append(f"  available: {', '.join(self.available)}")
        if self.hint:
            lines.append(f"  next: {self.hint}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Tensor:
    """An input or output. ``shape`` names dimensions and attributes; ``alias`` an input whose
    memory this output shares."""

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[str, ...]
    optional: bool = False
    alias: str | None = None


@dataclass(frozen=True)
class Attribute:
    """An attribute of the node; ``default`` None means it must be given."""

    name: str
    type: str
    default: float | int | None
    minimum: float
    maximum: float
    meaning: str


@dataclass(frozen=True)
class Tolerance:
    """``|kernel - reference| <= absolute + relative * |reference|``, element by element."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class PluginSpec:
    """An op: how a graph names it, what goes in and out, and how exact a kernel has to be."""

    name: str
    namespace: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: tuple[Attribute, ...]
    tolerance: dict[str, Tolerance]

    def attribute(self, name: str) -> Attribute:
        """The attribute called ``name``.

        Raises:
            PluginError: there is none; lists those there are.
        """
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute
        names = [attribute.name for attribute in self.attributes]
        raise PluginError(f"{self.name} has no such attribute", found=name, available=names)

    def as_dict(self) -> dict[str, Any]:
        """The description as JSON-ready data."""
        return asdict(self)


def plugin_spec(name: str) -> PluginSpec:
    """The spec of the plugin in folder ``name``.

    Raises:
        PluginError: there is no such plugin; lists those there are.
    """
    if name not in PLUGINS:
        raise PluginError("no such plugin", found=name, available=PLUGINS)
    # By name, not by import statement: this module stands below the plugins.
    spec: PluginSpec = importlib.import_module(f"lepton_plugins.{name}.spec").SPEC
    return spec
