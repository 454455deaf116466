"""A plan of TensorRT, deserialized: its contexts, its captured graphs, and its memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lepton_compile.runtime.loader_cuda import Cuda
from lepton_compile.runtime.loader_guard import LoaderError, UnfitError, refuse

__all__ = ["Context", "Plan"]


class Context:
    """One execution context: what it is bound to, and the graph that was captured of it."""

    def __init__(self, session: Any, context: Any, *, graphs: bool) -> None:
        self._session, self._context, self._graphs = session, context, graphs
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._graph, self._settled, self.ran = None, False, False

    def shape(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Set the inputs' shapes."""
        if shapes != self._shapes:
            self.forget()
            for name, shape in shapes.items():
                fine = self._context.set_input_shape(name, shape)
                refuse(not fine, f"{name} cannot be {shape}{self._session.said()}")
            self._shapes = shapes

    def output(self, name: str) -> tuple[int, ...]:
        """The shape of an output, given those of the inputs."""
        return tuple(self._context.get_tensor_shape(name))

    def place(self, addresses: dict[str, int]) -> None:
        """Say where each input and output lies."""
        if addresses != self._addresses:
            self.forget()
            for name, address in addresses.items():
                fine = self._context.set_tensor_address(name, address)
                refuse(not fine, f"{name} cannot lie at {address:#x}{self._session.said()}")
            self._addresses = addresses

    def run(self) -> None:
        """Queue one run. The second with the same shapes and addresses is captured and replayed."""
        device, stream = self._session.device, self._session.stream
        if not self._settled and (missing := self._context.infer_shapes()):
            raise LoaderError(f"the engine has no value for {missing}")
        if self._graph is None and self._graphs and self._settled:
            self._capture()
        if self._graph is not None:
            device.launch(self._graph, stream)
            return
        fine = self._context.execute_async_v3(stream)
        refuse(not fine, f"the engine did not run{self._session.said()}")
        self._settled, self._session.unsaved = True, self._session.unsaved or not self.ran
        self.ran = True

    def _capture(self) -> None:
        """Record a run; an engine that does not let itself be recorded is run as it is."""
        device, stream, fine = self._session.device, self._session.stream, False
        device.begin_capture(stream)
        try:
            fine = self._context.execute_async_v3(stream)
        finally:
            with suppress(LoaderError):
                self._graph = device.end_capture(stream)
        if not fine:
            self.forget()
        self._graphs = self._graph is not None

    def forget(self) -> None:
        """Drop the captured graph: it holds for what it was captured with alone."""
        if self._graph is not None:
            self._session.device.wait(self._session.stream)
            self._session.device.free_graph(self._graph)
        self._graph, self._settled = None, False

    def close(self) -> None:
        """Let the context go; before its engine."""
        self.forget()
        self._context = None


class Plan:
    """A deserialized engine with its contexts, its stream and the memory that it was given."""

    def __init__(
        self, trt: Any, device: Cuda, entry: Mapping[str, Any], plugin: Any = None
    ) -> None:
        self.trt, self.device, self.entry, self.plugin = trt, device, entry, plugin
        self.stream: int = device.stream()
        self.rtx = entry["target"] == "trt-rtx"
        self.contexts: list[Context] = []
        self.caches: list[Any] = []  # What else has memory of the device, to be closed first.
        self._rooms: dict[str, tuple[int, int]] = {}
        self._kernels: Any = None
        self.unsaved = False  # Whether a context has first run since kernels were kept.
        self.engine: Any = None
        self.log = _logger(trt)

    def open(self, plan: bytes, kernels: Any) -> None:
        """Deserialize the plan; ``kernels`` is the file of what RTX compiles here."""
        self.runtime = self.trt.Runtime(self.log)
        self._check_plan(plan)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        gpu = f"{self.device.name} ({self.device.capability}, CUDA {self.device.driver})"
        refuse(self.engine is None, f"the plan does not open on {gpu}{self.said()}", UnfitError)
        names = [self.engine.get_tensor_name(n) for n in range(self.engine.num_io_tensors)]
        self.inputs = [n for n in names if self.engine.get_tensor_mode(n).name == "INPUT"]
        self.outputs = [n for n in names if n not in self.inputs]
        self.kinds = {n: self.engine.get_tensor_dtype(n).name for n in names}
        self._kernels, self._kernel_file = None, kernels
        if self.rtx:
            self._kernels = self.engine.create_runtime_config().create_runtime_cache()
            if (known := kernels.read()) is not None:
                self._kernels.deserialize(known)  # False where they are not for this machine

    def _check_plan(self, plan: bytes) -> None:
        """What the runtime says about the plan's first bytes, in words."""
        if not hasattr(self.runtime, "get_engine_validity"):
            return
        validity, why = self.runtime.get_engine_validity(plan[: self.runtime.engine_header_size])
        members = self.trt.EngineInvalidityDiagnostics.__members__.items()
        words = [name.lower().replace("_", " ") for name, bit in members if int(why) & int(bit)]
        words = words or [f"it does not say why ({why})"]
        bad = validity == self.trt.EngineValidity.INVALID
        refuse(bad, f"the runtime refuses the plan: {', '.join(words)}{self.said()}", UnfitError)

    def said(self) -> str:
        """The last words of the runtime and of its plugin, to be put behind a message."""
        failures = getattr(self.plugin, "failures", [])[-1:]
        return "".join(f"\n  {line}" for line in [*self.log.lines, *failures])

    def context(self, profile: int, *, graphs: bool) -> Context:
        """A context for one of the engine's profiles; with ``graphs``, its runs are captured."""
        if self.rtx:
            config = self.engine.create_runtime_config()
            if graphs:
                config.cuda_graph_strategy = self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            config.set_runtime_cache(self._kernels)
            made = self.engine.create_execution_context(config)
        else:
            made = self.engine.create_execution_context()
        refuse(made is None, f"the GPU has no room for this engine{self.said()}", UnfitError)
        fine = made.set_optimization_profile_async(profile, self.stream)
        refuse(not fine, f"the engine has no profile {profile}{self.said()}", UnfitError)
        self.device.wait(self.stream)
        self.contexts.append(Context(self, made, graphs=graphs and not self.rtx))
        return self.contexts[-1]

    def room(self, name: str, size: int) -> int:
        """The address of at least ``size`` bytes, kept for the next that asks for ``name``."""
        address, found = self._rooms.get(name, (0, 0))
        if found < size:
            if found:
                self.device.wait(self.stream)
                self.device.free(address)
                del self._rooms[name]
            address = self.device.malloc(size)
            self._rooms[name] = address, size
        return address

    def wait(self) -> None:
        """Wait for all that was queued. What a context's first run compiled is kept at once."""
        self.device.wait(self.stream)
        if self.unsaved:
            self.unsaved = False
            self.keep_kernels()

    def keep_kernels(self) -> None:
        """Write down what the runtime has compiled by now."""
        if self._kernels is not None:
            self._kernel_file.write(bytes(memoryview(self._kernels.serialize())))

    def close(self) -> None:
        """Let go of everything, in the order that the runtime wants."""
        if self.stream < 0:
            return
        with suppress(LoaderError):
            self.device.wait(self.stream)
        if any(context.ran for context in self.contexts):
            self.keep_kernels()
        for part in [*self.caches, *self.contexts]:
            part.close()
        self.contexts, self._kernels, self.engine, self.runtime = [], None, None, None
        for address, _ in self._rooms.values():
            self.device.free(address)
        self.device.free_stream(self.stream)
        self._rooms, self.stream = {}, -1

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process the driver may be gone already
            self.close()


def _logger(trt: Any) -> Any:
    """A logger that remembers the last errors, for our messages."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.lines = [*self.lines[-2:], message]

    return Log()
