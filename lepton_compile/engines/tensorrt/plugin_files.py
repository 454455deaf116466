"""The plugin that an engine needs, written beside its plan.

The child that builds registers the very files that are shipped, so what an artifact carries is what
its plan was built with. Which kernels are compiled follows from the nodes of the graph and from the
GPUs that the engine is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from lepton_compile.engines.gpu import gpus
from lepton_compile.engines.tensorrt.flavour import Flavour
from lepton_compile.errors import EngineError
from lepton_compile.progress import Step
from lepton_plugins.attention.emit import emit
from lepton_plugins.attention.index import KernelIndex
from lepton_plugins.attention.nodes import variants_in
from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.tiles import ARCHITECTURES
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError

__all__ = ["PLUGIN_FOLDER", "architectures_for", "refusals_told", "write_plugin"]

PLUGIN_FOLDER = "plugin"
"""Beside the plan."""

NAMES = {"float8_e4m3fn": "FLOAT8E4M3FN"}
"""Types that not all GPUs have: the kernels' names and ONNX's."""


def write_plugin(
    model: ir.Model,
    folder: Path,
    capabilities: Sequence[str],
    flavour: Flavour,
    step: Step | None,
) -> dict[str, Any] | None:
    """Write the plugin that a flat graph asks for; its entry in the manifest, None without one.

    Args:
        folder: does not exist yet.
        capabilities: compute capabilities that the engine is for; none is all that the library
            builds for, or else the GPU of this machine.

    Raises:
        EngineError: there is no kernel for a node, or none for a GPU that was named.
    """
    with refusals_told():
        variants = variants_in(model)
        if not variants:
            return None
        own = [] if flavour.capabilities else [gpu.compute_capability for gpu in gpus()[:1]]
        wanted = list(capabilities) or own
        reached = wanted or _with_types(flavour, variants)
        architectures = architectures_for(reached, strict=bool(wanted))
        emit(folder, variants, architectures, step=step)
        _check(folder, variants, wanted)
    return {
        "name": SPEC.name,
        "namespace": SPEC.namespace,
        "version": SPEC.version,
        "folder": folder.name,
        "architectures": [_dotted(each) for each in architectures],
    }


@contextmanager
def refusals_told() -> Iterator[None]:
    """What the plugin refuses, as an error of the engine."""
    try:
        yield
    except PluginError as error:
        raise EngineError(
            f"the plugin {SPEC.name}: {error.message}",
            where=error.where,
            found=error.found,
            available=error.available,
            hint=error.hint,
        ) from error


def _with_types(flavour: Flavour, variants: Sequence[Variant]) -> list[str]:
    """What the library builds for, as far as the caches of the kernels exist there."""
    names = {NAMES[v.cache_dtype] for v in variants if v.cache_dtype in NAMES}
    least = [flavour.dtypes[name] for name in names if name in flavour.dtypes]
    return [c for c in flavour.capabilities if all(_number(c) >= _number(each) for each in least)]


def architectures_for(capabilities: Sequence[str], *, strict: bool) -> list[int]:
    """What to compile for: the newest that each GPU runs as machine code.

    Raises:
        EngineError: there is none for one of them, if ``strict``.
    """
    found: set[int] = set()
    for capability in capabilities:
        number = _number(capability)
        alike = [each for each in ARCHITECTURES if each // 10 == number // 10 and each <= number]
        if not alike and strict:
            raise EngineError(
                f"the plugin {SPEC.name} has no kernels for compute capability {capability}",
                where="compute_capabilities",
                found=", ".join(capabilities),
                available=[_dotted(each) for each in ARCHITECTURES],
                hint=f"leave {capability} out, or attention: mask where the model allows it",
            )
        found |= {max(alike)} if alike else set()
    return sorted(found)


def _check(folder: Path, variants: Sequence[Variant], capabilities: Sequence[str]) -> None:
    """A loader will find kernels for each GPU, as the index sees it."""
    index = KernelIndex(folder / "kernels")
    for variant in variants:
        for capability in capabilities:
            index.for_device(variant, _number(capability))


def _number(capability: str) -> int:
    return int(capability.replace(".", ""))


def _dotted(architecture: int) -> str:
    return f"{architecture // 10}.{architecture % 10}"
