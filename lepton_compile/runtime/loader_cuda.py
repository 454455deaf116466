"""The GPU, through cuda-bindings: memory, copies, a stream and captured graphs, and what it is.

Everything else talks to the device through the methods of ``Cuda`` alone. Addresses, streams and
graphs are plain integers and objects that only go back in. Copies and launches are queued on a
stream; nothing may be read or let go before ``wait``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import LoaderError, UnfitError, refuse

__all__ = ["Cuda"]


class Cuda:
    """The first GPU that this process may use (CUDA_VISIBLE_DEVICES says which).

    ``name``, ``capability`` ("8.9"), ``driver`` (the newest CUDA that it serves, "13.0") and
    ``bindings`` (the CUDA of cuda-bindings) describe it.
    Raises UnfitError where there is no GPU, no driver, or one that is too old for cuda-bindings.
    """

    def __init__(self) -> None:
        known = "cuda.bindings.runtime" in sys.modules or (
            find_spec("cuda") and find_spec("cuda.bindings")
        )
        refuse(not known, "this engine needs cuda-bindings: pip install cuda-bindings", UnfitError)
        try:
            ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
            runtime: Any = import_module("cuda.bindings.runtime")
        except (ImportError, OSError) as error:
            raise UnfitError(f"there is no NVIDIA driver here: {error}") from None
        self._cuda = runtime
        self._pinned: dict[int, int] = {}
        kinds = runtime.cudaMemcpyKind
        self._in, self._out = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        number, attributes = 0, runtime.cudaDeviceAttr
        self.bindings = _dotted(self._call("cudaRuntimeGetVersion"))
        try:
            self.driver = _dotted(self._call("cudaDriverGetVersion"))
            refuse(not self._call("cudaGetDeviceCount"), "there is no GPU here")
            self.name = self._call("cudaGetDeviceProperties", number).name.decode().strip("\0")
            major, minor = (
                self._call("cudaDeviceGetAttribute", attribute, number)
                for attribute in (
                    attributes.cudaDevAttrComputeCapabilityMajor,
                    attributes.cudaDevAttrComputeCapabilityMinor,
                )
            )
        except LoaderError as error:
            why = f"{error} (driver for CUDA {self.driver}, cuda-bindings for {self.bindings})"
            raise UnfitError(why) from None
        self.capability = f"{major}.{minor}"

    def _call(self, function: str, *arguments: Any) -> Any:
        """What the CUDA function gives; its error as ours."""
        code, *results = getattr(self._cuda, function)(*arguments)
        if int(code):
            _, text = self._cuda.cudaGetErrorString(code)
            raise LoaderError(f"{function}: {text.decode()}")
        return results[0] if results else None

    def malloc(self, size: int) -> int:
        """The address of ``size`` bytes on the device, aligned to 256."""
        try:
            return int(self._call("cudaMalloc", max(size, 1)))
        except LoaderError as error:
            raise LoaderError(f"the GPU has no room for {size} more bytes: {error}") from None

    def free(self, address: int) -> None:
        """Give back what ``malloc`` gave."""
        self._call("cudaFree", address)

    def host(self, size: int) -> np.ndarray:
        """``size`` bytes of host memory that copies need not go round, as uint8."""
        address = int(self._call("cudaHostAlloc", max(size, 1), 0))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        self._pinned[array.ctypes.data] = address
        return array

    def free_host(self, array: np.ndarray) -> None:
        """Give back what ``host`` gave."""
        self._call("cudaFreeHost", self._pinned.pop(array.ctypes.data))

    def zero(self, address: int, size: int, stream: int) -> None:
        """Set ``size`` bytes at ``address`` to zero."""
        self._call("cudaMemsetAsync", address, 0, size, stream)

    def copy_in(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copy a contiguous array to the device; it stays as it is until ``wait``."""
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, self._in, stream)

    def copy_out(self, array: np.ndarray, address: int, stream: int) -> None:
        """Copy from the device into a contiguous array, which holds the bytes after ``wait``."""
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, self._out, stream)

    def copy_parts(
        self, to: int, step: int, start: int, size: int, count: int, stream: int
    ) -> None:
        """Copy ``count`` parts of ``size`` bytes from ``start`` on, to ``to``, ``step`` apart."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpy2DAsync", to, step, start, size, size, count, kind, stream)

    def stream(self) -> int:
        """A new stream, of its own and not the default one."""
        flags = self._cuda.cudaStreamNonBlocking
        return int(self._call("cudaStreamCreateWithFlags", flags))

    def wait(self, stream: int) -> None:
        """Wait until all that was queued is done; raises what went wrong there."""
        self._call("cudaStreamSynchronize", stream)

    def free_stream(self, stream: int) -> None:
        """Give back what ``stream`` gave."""
        self._call("cudaStreamDestroy", stream)

    def begin_capture(self, stream: int) -> None:
        """From here on what is queued is recorded, not run."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> Any:
        """What was recorded since ``begin_capture``, ready for ``launch``."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: int) -> None:
        """Queue what a capture recorded."""
        self._call("cudaGraphLaunch", graph, stream)

    def free_graph(self, graph: Any) -> None:
        """Give back what ``end_capture`` gave."""
        self._call("cudaGraphExecDestroy", graph)


def _dotted(version: int) -> str:
    """13020 is CUDA's way to write 13.2; 0 says that there is no driver."""
    return f"{version // 1000}.{version % 1000 // 10}" if version else "none"
