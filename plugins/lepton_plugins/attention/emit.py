"""What an artifact carries of the plugin: one source file and the kernels that its plan asks for.

    plugin/plugin_runtime.py       register(trt, folder): the plugin without this package
    plugin/kernels/kernels.json    the kernels by variant and architecture, with their SHA-256
    plugin/kernels/<set>/<kernel>-<architecture>.cubin, .ptx

A loader runs ``plugin_runtime.py`` and calls ``register`` with TensorRT's module and the folder,
before it opens the plan. Nothing there needs more than numpy, cuda-bindings and TensorRT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lepton_plugins.attention.bundle import bundle
from lepton_plugins.attention.compiled import write_kernels
from lepton_plugins.attention.variant import Variant

__all__ = ["RUNTIME_FILE", "emit", "runtime_source"]

RUNTIME_FILE = "plugin_runtime.py"

_DOCSTRING = """The attention plugin of this artifact, for TensorRT and TensorRT-RTX: ``register``.

Put together from the modules of lepton-compile; needs numpy and cuda-bindings, not that package.
"""


def emit(
    folder: Path,
    variants: Iterable[Variant],
    architectures: Sequence[int],
    *,
    cache: Path | None = None,
    step: Callable[[str, int, int], None] | None = None,
) -> list[Path]:
    """Write the plugin into ``folder``, with kernels of ``variants`` for ``architectures``.

    Args:
        variants: of ``nodes.variants_in``: floats rounded as the plan will hold them.
        cache: where compiled kernels are kept between builds.
        step: told (what, done, total) as kernels are compiled.

    Returns:
        The files, sorted; the same bytes for the same arguments and tools.

    Raises:
        PluginError: a kernel cannot exist on one of the architectures; nothing is written then.
    """
    write_kernels(folder / "kernels", variants, architectures, cache=cache, step=step)
    (folder / RUNTIME_FILE).write_text(runtime_source(), encoding="utf-8")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def runtime_source() -> str:
    """The text of ``plugin_runtime.py``."""
    return bundle("lepton_plugins.attention.plugin_v3", _DOCSTRING, ("register",))
