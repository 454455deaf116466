"""Run the compiled kernels on any device pointers: no torch, no triton.

    kernels = Kernels(Path("kernels"))              # a folder that write_kernels made
    size = kernels.workspace_bytes(variant, batch=8, sequence=1, capacity=4096)
    kernels.launch(variant, pointers, batch=8, sequence=1, capacity=4096,
                   workspace=pointer, stream=stream)

Kernels are loaded when they are first asked for, those of a variant all at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lepton_plugins.attention.driver import CudaDriver, Driver
from lepton_plugins.attention.index import KernelIndex
from lepton_plugins.attention.launch import (
    DECODE_SEQUENCE,
    KERNELS,
    arguments,
    decode_splits,
    dimensions,
    grid,
    steps,
    workspace,
)
from lepton_plugins.attention.tiles import Tiles
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError

__all__ = ["Kernels"]

_GRID_LIMIT = 65535


@dataclass(frozen=True)
class _Loaded:
    """One kernel on the device."""

    module: Any
    function: Any
    tiles: Tiles
    threads: int
    shared: int
    arguments: tuple[str, ...]
    sizes: tuple[int, ...]


class Kernels:
    """The sets of kernels in a folder, on the current device.

    Raises:
        PluginError: the folder holds no index that this version can read.
    """

    def __init__(self, folder: Path, driver: Driver | None = None) -> None:
        self.index, self._driver = KernelIndex(folder), driver
        self._loaded: dict[str, dict[str, _Loaded]] = {}
        self._processors = 0

    def prepare(self, variant: Variant) -> None:
        """Load the kernels of ``variant``, so that a launch (or a graph's capture) need not.

        Raises:
            PluginError: there are none for it or for this device, or a file is damaged.
        """
        self._set(variant)

    def splits(
        self, variant: Variant, *, batch: int, sequence: int, capacity: int, most: int | None = None
    ) -> int:
        """Into how many parts a decode step cuts the keys on this device."""
        best = decode_splits(
            variant,
            self._set(variant)["decode"].tiles,
            batch=batch,
            sequence=sequence,
            capacity=capacity,
            processors=self._processors,
        )
        return best if most is None else min(best, most)

    def workspace_bytes(self, variant: Variant, *, batch: int, sequence: int, capacity: int) -> int:
        """Bytes of device memory that ``launch`` needs for these sizes; 0 beyond decode steps."""
        if sequence > DECODE_SEQUENCE:
            return 0
        splits = self.splits(variant, batch=batch, sequence=sequence, capacity=capacity)
        return workspace(variant, batch=batch, sequence=sequence, splits=splits).size

    def launch(
        self,
        variant: Variant,
        pointers: Mapping[str, int],
        *,
        batch: int,
        sequence: int,
        capacity: int,
        workspace: int = 0,
        stream: int = 0,
        most_splits: Callable[[int, int, int], int] | None = None,
    ) -> None:
        """Enqueue one call of the op on ``stream``.

        Args:
            pointers: device addresses by name: ``query``, ``key``, ``value``, ``past_lengths``,
                ``key_cache``, ``value_cache``, ``output``, and ``sinks`` if the variant has them.
            workspace: address of ``workspace_bytes``; aligned to 256.
            most_splits: an upper bound by (batch, sequence, capacity), for a workspace of fixed
                size.

        Raises:
            PluginError: an address is missing or not aligned, a size is out of range, or the driver
                refuses. What was enqueued before stays so.
        """
        most = None if most_splits is None else most_splits(batch, sequence, capacity)
        splits = 1
        if sequence <= DECODE_SEQUENCE:
            size = {"batch": batch, "sequence": sequence, "capacity": capacity}
            splits = self.splits(variant, **size, most=most)
        addresses = _addresses(variant, pointers, workspace, batch, sequence, splits)
        loaded = self._set(variant)
        for name in steps(sequence):
            kernel = loaded[name]
            known = dimensions(
                variant,
                kernel.tiles,
                batch=batch,
                sequence=sequence,
                capacity=capacity,
                splits=splits,
            )
            blocks = _checked(grid(name, known), known)
            values = [addresses[n] if n in addresses else known[n] for n in kernel.arguments]
            self._device().launch(
                kernel.function, blocks, kernel.threads, kernel.shared, stream, values, kernel.sizes
            )

    def close(self) -> None:
        """Unload every module; what runs must have finished. The kernels can be loaded again."""
        loaded, self._loaded = self._loaded, {}
        for kernels in loaded.values():
            for kernel in kernels.values():
                self._device().unload(kernel.module)

    def __enter__(self) -> Kernels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _device(self) -> Driver:
        if self._driver is None:
            self._driver = CudaDriver()
        return self._driver

    def _set(self, variant: Variant) -> dict[str, _Loaded]:
        if variant.key not in self._loaded:
            self._processors = self._processors or self._device().processors()
            self._loaded[variant.key] = self._load(variant)
        return self._loaded[variant.key]

    def _load(self, variant: Variant) -> dict[str, _Loaded]:
        """All kernels for this device, or none: what is loaded when one fails goes back."""
        entries, native = self.index.for_device(variant, self._device().capability())
        loaded: dict[str, _Loaded] = {}
        try:
            for name in KERNELS:
                loaded[name] = self._load_kernel(name, entries[name], native, variant)
        except BaseException:
            for kernel in loaded.values():
                self._device().unload(kernel.module)
            raise
        return loaded

    def _load_kernel(
        self, name: str, entry: dict[str, Any], native: bool, variant: Variant
    ) -> _Loaded:
        expected = arguments(name, variant)
        found = tuple(each[0] for each in entry["parameters"])
        if found != expected:
            raise PluginError(
                "the kernels were compiled for another version of the launch contract",
                where=f"{self.index.folder}: {name}",
                found=", ".join(found),
                available=(", ".join(expected),),
            )
        module = self._load_module(entry, native)
        try:
            function = self._device().function(module, entry["entry"], entry["shared"])
        except PluginError:
            self._device().unload(module)
            raise
        return _Loaded(
            module=module,
            function=function,
            tiles=Tiles(**entry["tiles"]),
            threads=32 * entry["num_warps"],
            shared=entry["shared"],
            arguments=found,
            sizes=tuple(8 if each[1].startswith("*") else 4 for each in entry["parameters"]),
        )

    def _load_module(self, entry: dict[str, Any], native: bool) -> Any:
        """Machine code, or PTX where a driver older than the assembler cannot read that."""
        if native:
            image = self.index.read(entry["cubin"])
            try:
                return self._device().load(image)
            except PluginError:
                pass
        return self._device().load(self.index.read(entry["ptx"]) + b"\0")


def _addresses(
    variant: Variant,
    pointers: Mapping[str, int],
    scratch: int,
    batch: int,
    sequence: int,
    splits: int,
) -> dict[str, int]:
    """Every pointer argument, checked; the caches under both of their names."""
    names = ["query", "key", "value", "past_lengths", "key_cache", "value_cache", "output"]
    missing = [n for n in (*names, *(["sinks"] if variant.sinks else [])) if not pointers.get(n)]
    if missing:
        raise PluginError("a tensor is missing", found=", ".join(missing))
    layout = workspace(variant, batch=batch, sequence=sequence, splits=splits)
    if layout.size and not scratch:
        raise PluginError("a decode step needs a workspace", found=f"{layout.size} bytes")
    found = {
        **pointers,
        "present_key": pointers["key_cache"],
        "present_value": pointers["value_cache"],
        "partial": scratch + layout.partial,
        "partial_lse": scratch + layout.partial_lse,
    }
    crooked = [n for n in found if n not in ("past_lengths", "sinks") and found[n] % 16]
    if crooked:
        raise PluginError("an address is not a multiple of 16", found=", ".join(crooked))
    return found


def _checked(blocks: tuple[int, int, int], known: Mapping[str, int]) -> tuple[int, int, int]:
    sizes = {name: known[name] for name in ("batch", "sequence", "capacity")}
    if min(sizes.values()) < 1 or max(blocks[1:]) > _GRID_LIMIT:
        raise PluginError("sizes out of range", found=json.dumps(sizes))
    return blocks
