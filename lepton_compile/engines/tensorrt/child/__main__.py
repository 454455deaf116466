"""Entry of the child process: read the order, build, tell."""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from lepton_compile.engines.tensorrt.child.events import Cancelled, Events, Failure
from lepton_compile.engines.tensorrt.child.library import load
from lepton_compile.engines.tensorrt.child.plugins import (
    check_kernels,
    explained,
    register_all,
    register_baked,
)
from lepton_compile.engines.tensorrt.order import Order

__all__ = ["main"]

# What the library says where memory ends. The last: no memory for the stack of a thread.
OUT_OF_MEMORY = ("OutOfMemory", "bad_alloc", "Resource temporarily unavailable")


def main(path: str) -> None:
    """Build what the order in ``path`` asks for, and end the process."""
    events = Events()
    events.watch()
    try:
        _build(Order.read(Path(path)), events)
    except Cancelled:
        events.send("cancelled")
        _end(3)
    except Failure as failure:
        events.send("failure", **failure.fields)
        _end(1)
    except MemoryError:
        events.send("failure", message="the builder ran out of memory", memory=True)
        _end(1)
    except Exception as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {error}"
        events.send("failure", message="the builder failed", found=found)
        _end(1)


def _end(status: int) -> NoReturn:
    """End without taking the library's objects apart: it costs time, and some orders crash."""
    sys.stderr.flush()
    os._exit(status)


def _build(order: Order, events: Events) -> NoReturn:
    seconds: dict[str, float] = {}
    events.send("step", what="loading the library", done=0, total=0)
    started = time.perf_counter()
    library = _load(order)
    # Only now: their classes derive from the library's.
    from lepton_compile.engines.tensorrt.child import configure, network, observers

    log, recorder = observers.Log(), observers.ErrorRecorder()
    plugins = register_all(library, order.plugins)
    if order.baked is not None:
        register_baked(library, order.baked)
    builder = library.Builder(log)
    builder.error_recorder = recorder
    seconds["load"] = time.perf_counter() - started

    events.send("step", what="reading the graph", done=0, total=0)
    started = time.perf_counter()
    with explained(plugins):
        graph, _parser = network.parse(builder, log, order.model, baked=order.baked is not None)
    events.send("network", **network.describe(graph))
    _demand(events)
    seconds["parse"] = time.perf_counter() - started

    started = time.perf_counter()
    config = configure.configure(builder, graph, order)
    monitor = observers.ProgressMonitor(events)
    config.progress_monitor = monitor
    writer = observers.PlanWriter(Path(order.plan), events)
    built = builder.build_serialized_network_to_stream(graph, config, writer)
    writer.close()
    with explained(plugins):
        _check(built, writer, log, recorder, events)
    check_kernels(plugins)
    seconds["build"] = time.perf_counter() - started
    if order.timing_cache is not None:
        lost = configure.write_timing_cache(config, Path(order.timing_cache))
        if lost is not None:
            log.log(library.ILogger.WARNING, f"the timing cache could not be kept: {lost}")
    events.send(
        "built",
        version=str(library.__version__),
        bytes=writer.written,
        seconds=seconds,
        log=list(log.lines),
        peak_memory=_peak(),
    )
    _end(0)  # from inside, while everything that the library refers to is still there


def _load(order: Order) -> Any:
    try:
        return load(order.module, order.libraries, Path(order.links))
    except (ImportError, OSError) as error:
        raise Failure("the library does not load", found=str(error), missing=True) from error


def _peak() -> int:
    """Most bytes this process held. The system's own count would begin with our parent's."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _demand(events: Events) -> None:
    if events.cancelled.is_set():
        raise Cancelled


def _check(built: bool, writer: Any, log: Any, recorder: Any, events: Events) -> None:
    """Raise what the callbacks kept."""
    _demand(events)
    if writer.failed is not None:
        reason = writer.failed.strerror or str(writer.failed)
        hint = "free some space, or write elsewhere with -o; nothing was left behind"
        raise Failure("the plan could not be written", found=reason, hint=hint)
    if built and writer.written:
        return
    lines = log.errors or [text for _, text in recorder.errors]
    memory = any(word in line for line in lines for word in OUT_OF_MEMORY)
    what = "the builder ran out of memory" if memory else "the builder refused the network"
    raise Failure(what, found="\n".join(lines), memory=memory)


if __name__ == "__main__":
    main(sys.argv[1])
