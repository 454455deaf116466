"""A GPU made of numpy that takes nothing for granted.

Stands in for ``Cuda`` of the loader. Work that is queued on a stream runs at ``wait`` and not
before, so that a result read too early, or an input changed or let go too early, shows. Memory is
full of NaN at first. Whatever a real device would let pass or crash on is a ``FaultError``: memory
used after it was freed, freed twice or while work is queued, bytes beyond its end, an address that
is not aligned, a wait or an allocation during a capture, and anything left at the end.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

__all__ = ["FaultError", "Graph", "HostDevice"]

Operation = Callable[[], None]


class FaultError(AssertionError):
    """The loader did what no program may do with a device."""


@dataclass(eq=False)
class Graph:
    """What was queued during a capture."""

    operations: list[Operation] = field(default_factory=list)


class HostDevice:
    """Device memory, streams and graphs; ``calls`` is the log of what was asked of it."""

    def __init__(self, capability: str = "8.9", driver: str = "13.0", room: int = 1 << 30) -> None:
        self.name, self.capability, self.driver = "Test GPU", capability, driver
        self.bindings = "13.5"
        self.calls: list[str] = []
        self.room = room
        self._next = 0x7F0000000000
        self._memory: dict[int, np.ndarray] = {}
        self._pinned: dict[int, np.ndarray] = {}
        self._streams: dict[int, list[Operation]] = {}
        self._graphs: list[Graph] = []
        self._capture: tuple[int, Graph] | None = None

    # -- memory --------------------------------------------------------------------------------

    def malloc(self, size: int) -> int:
        self._log("malloc")
        self._not_in_capture("memory allocated")
        if self.allocated() + size > self.room:
            from lepton_compile.runtime.loader_guard import LoaderError

            raise LoaderError("cudaMalloc: out of memory")
        address = self._next
        self._next += -(-size // 256) * 256 + 4096  # a gap that nobody may touch
        self._memory[address] = np.full(size, 0xFF, np.uint8)
        return address

    def free(self, address: int) -> None:
        self._log("free")
        self._idle("freed")
        if self._memory.pop(address, None) is None:
            raise FaultError(f"{address:#x} was freed twice, or never allocated")

    def allocated(self) -> int:
        """Bytes of the device that are taken."""
        return sum(len(block) for block in self._memory.values())

    def host(self, size: int) -> np.ndarray:
        self._log("host")
        array = np.full(size, 0xFF, np.uint8)
        self._pinned[array.ctypes.data] = array
        return array

    def free_host(self, array: np.ndarray) -> None:
        self._idle("freed")
        if self._pinned.pop(array.ctypes.data, None) is None:
            raise FaultError("host memory was freed twice, or never allocated")

    def view(self, address: int, size: int) -> np.ndarray:
        """The bytes at an address: all of one block that is still there."""
        for start, block in self._memory.items():
            if start <= address < start + len(block):
                if address + size > start + len(block):
                    raise FaultError(f"{address + size - start - len(block)} bytes beyond the end")
                return block[address - start : address - start + size]
        raise FaultError(f"nothing is allocated at {address:#x}")

    # -- work ----------------------------------------------------------------------------------

    def zero(self, address: int, size: int, stream: int) -> None:
        self.view(address, size)
        self.queue(stream, lambda: self.view(address, size).fill(0))

    def copy_in(self, address: int, array: np.ndarray, stream: int) -> None:
        self._log("copy_in")
        here = self._bytes(array)
        self.view(address, array.nbytes)

        def copy() -> None:
            self.view(address, len(here()))[:] = here()

        self.queue(stream, copy)

    def copy_out(self, array: np.ndarray, address: int, stream: int) -> None:
        self._log("copy_out")
        here = self._bytes(array)
        self.view(address, array.nbytes)

        def copy() -> None:
            here()[:] = self.view(address, len(here()))

        self.queue(stream, copy)

    def copy_parts(
        self, to: int, step: int, start: int, size: int, count: int, stream: int
    ) -> None:
        """``count`` parts of ``size`` bytes that lie side by side, to where they are apart."""
        self._log("copy_parts")
        if size > step:
            raise FaultError(f"parts of {size} bytes do not fit {step} apart")
        self.view(to, step * (count - 1) + size)
        self.view(start, size * count)

        def copy() -> None:
            for part in range(count):
                self.view(to + part * step, size)[:] = self.view(start + part * size, size)

        self.queue(stream, copy)

    def stream(self) -> int:
        handle = 1 + len(self._streams)
        self._streams[handle] = []
        return handle

    def free_stream(self, stream: int) -> None:
        self._idle("destroyed")
        if self._streams.pop(stream, None) is None:
            raise FaultError("a stream was destroyed twice, or never made")

    def wait(self, stream: int) -> None:
        self._log("wait")
        self._not_in_capture("waited")
        operations, self._streams[stream] = self._operations(stream), []
        for operation in operations:
            operation()

    def queue(self, stream: int, operation: Operation) -> None:
        """Run ``operation`` when the stream gets there, or whenever its graph is launched."""
        if self._capture is not None and self._capture[0] == stream:
            self._capture[1].operations.append(operation)
            return
        self._operations(stream).append(operation)

    def _operations(self, stream: int) -> list[Operation]:
        if stream not in self._streams:
            raise FaultError(f"there is no stream {stream}")
        return self._streams[stream]

    # -- graphs --------------------------------------------------------------------------------

    def begin_capture(self, stream: int) -> None:
        self._log("begin_capture")
        self._not_in_capture("captured")
        self._capture = (stream, Graph())

    def end_capture(self, stream: int) -> Graph:
        self._log("end_capture")
        if self._capture is None or self._capture[0] != stream:
            raise FaultError("no capture was begun on this stream")
        graph, self._capture = self._capture[1], None
        self._graphs.append(graph)
        return graph

    def launch(self, graph: Graph, stream: int) -> None:
        self._log("launch")
        if graph not in self._graphs:
            raise FaultError("a graph was launched that is gone")
        for operation in graph.operations:
            self.queue(stream, operation)

    def free_graph(self, graph: Graph) -> None:
        self._log("free_graph")
        self._idle("freed")
        if graph not in self._graphs:
            raise FaultError("a graph was freed twice")
        self._graphs.remove(graph)

    # -- what is held against it ---------------------------------------------------------------

    def clean(self) -> None:
        """Raise if anything was not given back."""
        left = [self._memory, self._pinned, self._streams, self._graphs]
        names = ("blocks of memory", "blocks of host memory", "streams", "graphs")
        found = [f"{len(part)} {name}" for part, name in zip(left, names, strict=True) if part]
        if found:
            raise FaultError(f"left at the end: {', '.join(found)}")

    def _log(self, call: str) -> None:
        self.calls.append(call)

    def _idle(self, what: str) -> None:
        if any(self._streams.values()):
            raise FaultError(f"something was {what} while work is queued")

    def _not_in_capture(self, what: str) -> None:
        if self._capture is not None:
            raise FaultError(f"{what} while a graph is captured")

    def _bytes(self, array: np.ndarray) -> Callable[[], np.ndarray]:
        """The array's bytes, when the copy takes place: they must still be there by then."""
        if not array.flags.c_contiguous:
            raise FaultError("an array that is not contiguous was copied")
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        alive, start = weakref.ref(owner), array.ctypes.data - owner.ctypes.data
        size = array.nbytes

        def bytes_now() -> np.ndarray:
            there = alive()
            if there is None:
                raise FaultError("an array was let go before its copy took place")
            return there.reshape(-1).view(np.uint8)[start : start + size]

        return bytes_now
