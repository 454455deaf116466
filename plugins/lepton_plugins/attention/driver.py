"""The few calls of the CUDA driver that launching a kernel takes, behind one narrow class.

Tests put a double in its place; nothing else here needs a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from lepton_plugins.spec import PluginError

__all__ = ["CudaDriver", "Driver"]

# A block gets so much dynamic shared memory without asking.
_SHARED_BY_DEFAULT = 48 * 1024


class Driver(Protocol):
    """What a launcher needs. Modules and functions are opaque; pointers are integers."""

    def capability(self) -> int:
        """Of the current device: 90 for compute capability 9.0."""

    def processors(self) -> int:
        """Multiprocessors of the current device."""

    def load(self, image: bytes) -> Any:
        """A module from a cubin, or from PTX that ends in a zero byte."""

    def function(self, module: Any, entry: str, shared: int) -> Any:
        """A kernel of ``module`` that may use ``shared`` bytes of shared memory."""

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        stream: int,
        arguments: Sequence[int],
        sizes: Sequence[int],
    ) -> None:
        """Enqueue ``function``; ``sizes`` gives the bytes of each argument, 8 or 4."""

    def unload(self, module: Any) -> None:
        """Give ``module`` back."""


class CudaDriver:
    """The driver of this machine, by cuda-bindings.

    Works in the context that is current in the calling thread; where there is none, the primary
    context of the first device becomes current and stays so.

    Raises:
        PluginError: no cuda-bindings, no driver, no device; later, any call that the driver
            refuses, in its words.
    """

    def __init__(self) -> None:
        hint = "pip install 'cuda-bindings>=13'; an NVIDIA driver must be there"
        try:
            cuda: Any = import_module("cuda.bindings.driver")
            (code,) = cuda.cuInit(0)
        except (ImportError, OSError, RuntimeError) as error:
            raise PluginError("no CUDA driver", found=str(error), hint=hint) from error
        if code:
            raise PluginError("no CUDA driver", found=code.name, hint=hint)
        self._cuda = cuda
        self._device = self._current_device()

    def capability(self) -> int:
        """Of the current device: 90 for compute capability 9.0."""
        names = self._cuda.CUdevice_attribute
        major = self._attribute(names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        return 10 * major + self._attribute(names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)

    def processors(self) -> int:
        """Multiprocessors of the current device."""
        names = self._cuda.CUdevice_attribute
        return self._attribute(names.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)

    def load(self, image: bytes) -> Any:
        """A module from a cubin, or from PTX that ends in a zero byte."""
        return self._call("cuModuleLoadData", image)

    def function(self, module: Any, entry: str, shared: int) -> Any:
        """A kernel of ``module`` that may use ``shared`` bytes of shared memory."""
        function = self._call("cuModuleGetFunction", module, entry.encode())
        if shared > _SHARED_BY_DEFAULT:
            names = self._cuda.CUfunction_attribute
            size = names.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._call("cuFuncSetAttribute", function, size, shared)
        return function

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        stream: int,
        arguments: Sequence[int],
        sizes: Sequence[int],
    ) -> None:
        """Enqueue ``function``; the driver copies the arguments before it returns."""
        # An int32 lies in the first four of its eight bytes: devices and hosts are little-endian.
        values = (ctypes.c_uint64 * len(arguments))(*arguments)
        first = ctypes.addressof(values)
        places = (ctypes.c_void_p * len(arguments))(*range(first, first + 8 * len(arguments), 8))
        at = ctypes.addressof(places)
        self._call("cuLaunchKernel", function, *grid, threads, 1, 1, shared, stream, at, 0)

    def unload(self, module: Any) -> None:
        """Give ``module`` back."""
        self._call("cuModuleUnload", module)

    def _current_device(self) -> Any:
        context = self._call("cuCtxGetCurrent")
        if int(context):
            return self._call("cuCtxGetDevice")
        handle = self._call("cuDeviceGet", 0)
        self._call("cuCtxSetCurrent", self._call("cuDevicePrimaryCtxRetain", handle))
        return handle

    def _attribute(self, name: Any) -> int:
        return int(self._call("cuDeviceGetAttribute", name, self._device))

    def _call(self, name: str, *arguments: Any) -> Any:
        code, *results = getattr(self._cuda, name)(*arguments)
        if not code:
            return results[0] if results else None
        _, text = self._cuda.cuGetErrorString(code)
        words = text.decode() if isinstance(text, bytes) else str(text)
        raise PluginError(f"the CUDA driver refused {name}", found=f"{code.name}: {words}")
