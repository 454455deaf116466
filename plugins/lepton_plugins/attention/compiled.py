"""The attention kernels, compiled: one at a time, or whole sets for the launcher."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lepton_plugins.attention.launch import KERNELS
from lepton_plugins.attention.source import constants, parameter_types
from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.tiles import ARCHITECTURES, Tiles, architecture, tiles_for
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.compile import Compiled, Source, compile_source
from lepton_plugins.toolchain.ptxas import assembler_version
from lepton_plugins.toolchain.store import cache_folder, cached, content_key, record, write_folder

__all__ = ["compile_kernel", "kernel_key", "write_kernels"]

# Read as bytes: the key of the cache is known without importing triton.
_SOURCES = (
    *("blocks.py", "kernels.py", "compiled.py"),
    *(f"../toolchain/{name}.py" for name in ("compile", "ptx", "ptxas")),
)
_UNALIGNED = ("past_lengths", "sinks")


def compile_kernel(
    kernel: str,
    variant: Variant,
    arch: int,
    *,
    tiles: Tiles | None = None,
    cache: Path | None = None,
) -> Compiled:
    """``kernel`` of ``variant`` for compute capability ``arch`` (90 for 9.0).

    Args:
        tiles: other sizes than those of ``tiles_for``.
        cache: where to keep the result; by default the user's cache folder.

    Raises:
        PluginError: it cannot exist on this architecture, or triton is not installed.
    """
    target = architecture(arch)
    if variant.cache_dtype == "float8_e4m3fn" and not target.fp8:
        able = tuple(str(each.name) for each in ARCHITECTURES.values() if each.fp8)
        raise PluginError(
            "this architecture cannot convert fp8 (e4m3)",
            where=f"{SPEC.name}, cache_dtype",
            found=f"compute capability {arch / 10:.1f}",
            available=able,
            hint="cache_dtype int8, or that of the query",
        )
    tiles = tiles or tiles_for(kernel, arch, variant)

    def make() -> Compiled:
        from lepton_plugins.attention import kernels

        parameters = parameter_types(kernel, variant)
        pointers = [name for name, kind in parameters.items() if kind.startswith("*")]
        source = Source(
            function=getattr(kernels, KERNELS[kernel].entry),
            parameters=parameters,
            constants=constants(kernel, variant, tiles),
            aligned=[name for name in pointers if name not in _UNALIGNED],
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )
        return compile_source(source, arch, target.shared_bytes)

    return cached(kernel_key(kernel, variant, arch, tiles), make, cache or cache_folder())


def kernel_key(kernel: str, variant: Variant, arch: int, tiles: Tiles | None = None) -> str:
    """A digest of all that decides what ``compile_kernel`` gives for the same arguments."""
    tiles = tiles or tiles_for(kernel, arch, variant)
    return content_key(
        sources=_sources_digest(),
        kernel=kernel,
        arch=arch,
        tiles=asdict(tiles),
        parameters=parameter_types(kernel, variant),
        constants=constants(kernel, variant, tiles),
        tools=_tools(),
    )


def write_kernels(
    folder: Path,
    variants: Iterable[Variant],
    architectures: Sequence[int],
    *,
    cache: Path | None = None,
    step: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """All kernels of ``variants`` for ``architectures`` into ``folder``; returns the index.

    A folder that is there already is replaced, if it is one of these. ``step`` is told (what, done,
    total).

    Raises:
        PluginError: a kernel cannot exist on one of the architectures; nothing is written then.
    """
    files: dict[str, bytes] = {}
    sets: dict[str, Any] = {}
    asked, targets = sorted(set(variants), key=lambda each: each.key), sorted(set(architectures))
    for at, variant in enumerate(asked):
        entries = []
        for arch in targets:
            if step is not None:
                what = f"kernels for compute capability {arch / 10:.1f}"
                step(what, at * len(targets) + targets.index(arch), len(asked) * len(targets))
            for kernel in KERNELS:
                made = compile_kernel(kernel, variant, arch, cache=cache)
                entry, data = record(made, f"{variant.key}/{kernel}-{arch}")
                tiles = asdict(tiles_for(kernel, arch, variant))
                entries.append({"kernel": kernel, "tiles": tiles, **entry})
                files |= data
        sets[variant.key] = {"variant": variant.as_dict(), "kernels": entries}
    names = {"plugin": SPEC.name, "namespace": SPEC.namespace, "version": SPEC.version}
    index: dict[str, Any] = {**names, "tools": _tools(), "sets": sets}
    write_folder(folder, index, files)
    return index


@functools.cache
def _sources_digest() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()


@functools.cache
def _tools() -> dict[str, str]:
    try:
        triton = version("triton")
    except PackageNotFoundError as error:
        hint = "pip install 'lepton-compile[plugins]'"
        raise PluginError("kernels are compiled by triton", hint=hint) from error
    return {"triton": triton, "ptxas": assembler_version()}
