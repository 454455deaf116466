"""Run the child process: its progress to us, our cancellation to it, its death as an error."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lepton_compile.engines.tensorrt.flavour import Flavour
from lepton_compile.errors import EngineError
from lepton_compile.progress import Step

__all__ = ["CHILD", "run_child"]

CHILD = "lepton_compile.engines.tensorrt.child"
PATIENCE = 15.0  # seconds for a cancelled child to end by itself
TICK = 0.5  # seconds between two looks at its memory
STILL = 120.0  # seconds without a word and without work after which a child is given up
LOG_TAIL = 12  # lines of standard error in a message
ROOM = "make room, or shrink shapes.sequence and shapes.batch"

# The builder makes and frees millions of small objects between weights. By its defaults glibc gives
# memory back and takes it again all the time, in pages of 4 kB: a fifth of the builder's time.
ALLOCATOR, OWN = "GLIBC_TUNABLES", "glibc.malloc."
TUNABLES = {
    "hugetlb": 1,  # large pages where the system leaves that to programs
    "mmap_threshold": 256 << 20,
    "trim_threshold": 4 << 30,
    "top_pad": 64 << 20,
}

Event = dict[str, Any]


def run_child(
    order: Path,
    flavour: Flavour,
    *,
    step: Step | None = None,
    look: Callable[[Event], None] | None = None,
    limit: int | None = None,
) -> Event:
    """Build what the order says; the ``built`` event of the child.

    Args:
        order: file that ``Order.write`` wrote; the child's standard error goes beside it.
        step: told about progress; an exception from it (KeyboardInterrupt too) cancels the build.
        look: shown every event; an exception from it cancels the build as well.
        limit: bytes of resident memory that the child and we may hold together.

    Raises:
        EngineError: the library refused something, ran out of memory, stopped working, or ended
            its process.
    """
    log = order.with_name("builder.log")
    built: Event | None = None
    with _started(order, log) as child:
        for event in _events(child, limit):
            if event["event"] == "failure":
                raise _failure(event, flavour)
            if event["event"] == "step" and step is not None:
                step(event["what"], event["done"], event["total"])
            if event["event"] == "built":
                built = event
            if look is not None:
                look(event)
        status = child.wait()
    if built is None or status != 0:
        raise _death(status, log, flavour)
    return built


@contextlib.contextmanager
def _started(order: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The child; whatever ends the block early cancels it and waits until it is gone."""
    root = str(Path(__file__).parents[3])
    paths = [root, *(path for path in sys.path if path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    environment[ALLOCATOR] = _tunables(environment.get(ALLOCATOR, ""))
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", CHILD, str(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to handle: it cancels, it does not kill
        )
    try:
        yield child
    finally:
        _end(child)


def _tunables(given: str) -> str:
    """Settings for glibc, a user's own last: of two it takes the last. Others ignore them."""
    ours = [f"{OWN}{name}={value}" for name, value in TUNABLES.items()]
    return ":".join([*ours, *filter(None, [given])])


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask it to stop by closing its standard input, and insist after a while or a second Ctrl-C."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    child.stdout.close()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
    except BaseException:
        child.kill()
        raise
    finally:
        child.wait()


def _events(child: subprocess.Popen[bytes], limit: int | None) -> Iterator[Event]:
    """What the child says, until it says no more; its memory is looked at in between."""
    assert child.stdout is not None
    descriptor, rest = child.stdout.fileno(), b""
    work = _Work(child)
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if limit is not None:
                _check_memory(child.pid, limit)
            if not selector.select(TICK):
                work.check()
                continue
            data = os.read(descriptor, 1 << 16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from (json.loads(line) for line in lines)


class _Work:
    """Watches that a silent child computes: a library that misses a thread waits for it forever."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.seconds, self.since = 0.0, time.monotonic()

    def check(self) -> None:
        import psutil

        with contextlib.suppress(psutil.Error):
            times = psutil.Process(self.child.pid).cpu_times()
            self._look(times.user + times.system)

    def _look(self, seconds: float) -> None:
        if seconds > self.seconds:
            self.seconds, self.since = seconds, time.monotonic()
        elif time.monotonic() - self.since > STILL:
            self.child.kill()  # it would not hear that it is cancelled
            raise EngineError(
                "the builder's process has stopped working",
                where="build",
                found=f"no processor time in {STILL:.0f} seconds",
                hint=f"it most likely waits for a thread that it could not start: {ROOM}",
            )


def _check_memory(child: int, limit: int) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        used = sum(psutil.Process(pid).memory_info().rss for pid in (child, os.getpid()))
        if used > limit:
            raise EngineError(
                "the build needs more memory than its ceiling",
                where="build",
                found=f"{used / 1e9:.2f} GB resident, the builder's process included",
                available=[f"{limit / 1e9:.2f} GB (--max-memory)"],
                hint="raise --max-memory, or shorten shapes.sequence",
            )


def _failure(event: Event, flavour: Flavour) -> EngineError:
    hint = event.get("hint")
    if event.get("missing"):
        hint = f"{flavour.title} is not installed, or not whole: {flavour.install}"
    elif event.get("memory"):
        hint = f"{ROOM} (a limit on memory or threads counts too: ulimit -v, ulimit -u)"
    elif event.get("plugin"):
        hint = "no plugin of that name and namespace is registered: lepton-compile plugins"
    return EngineError(
        f"{flavour.title}: {event['message']}",
        where=event.get("where"),
        found=event.get("found"),
        available=event.get("available") or (),
        hint=hint,
    )


def _death(status: int, log: Path, flavour: Flavour) -> EngineError:
    """The child ended without a word of its own: killed, or by the library's own abort."""
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:])
    if status == -signal.SIGKILL:
        return EngineError(
            f"{flavour.title}: the builder's process was killed, most likely for want of memory",
            found=tail or None,
            hint=ROOM,
        )
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return EngineError(
        f"{flavour.title}: the builder's process ended with {name}",
        found=tail or "it said nothing",
        hint="the library gave up on this graph; the last lines above are its own",
    )
