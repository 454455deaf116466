"""The library's callbacks: its log, its progress, its errors, and the plan it streams out.

An exception that leaves a callback would end the process, so none does: what goes wrong is kept
and told after the builder has returned.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.engines.tensorrt.child.events import Events
from lepton_compile.engines.tensorrt.phases import readable

if TYPE_CHECKING:
    import tensorrt as trt
else:
    from lepton_compile.engines.tensorrt.child.library import trt

__all__ = ["ErrorRecorder", "Log", "PlanWriter", "ProgressMonitor", "spoken"]

KEPT_LINES = 400
BORING = ("Input filename:", "Doc string:", "Model version:")
OFTEN = 0.1  # seconds between two progress events


# Without a driver the library says this, too, after each error of another kind.
ECHO = "cudaError 35"


def spoken(texts: Iterable[str]) -> list[str]:
    """Errors once each, without what only says that there is no driver."""
    found = list(dict.fromkeys(texts))
    return [text for text in found if ECHO not in text] or found


class Log(trt.ILogger):
    """Keeps warnings and errors, and the last lines of everything else worth reading."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: deque[tuple[str, str]] = deque(maxlen=KEPT_LINES)
        self.problems: list[tuple[str, str]] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """A line of the library."""
        name = severity.name
        if name == "VERBOSE" or not msg.strip("- \n") or msg.startswith(BORING):
            return
        self.lines.append((name, msg))
        if name != "INFO" and len(self.problems) < KEPT_LINES:
            self.problems.append((name, msg))

    @property
    def errors(self) -> list[str]:
        """What it said went wrong, once each."""
        return spoken(text for name, text in self.problems if "ERROR" in name)


class ProgressMonitor(trt.IProgressMonitor):
    """Tells the parent which phase the builder is in, and the builder when to stop."""

    def __init__(self, events: Events) -> None:
        trt.IProgressMonitor.__init__(self)
        self._events = events
        self._steps: dict[str, int] = {}
        self._last = 0.0

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """A phase inside ``parent_phase`` begins."""
        self._steps[phase_name] = num_steps
        self._tell(phase_name, 0)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """A step is done. False makes the builder give up."""
        self._tell(phase_name, step + 1)
        return not self._events.cancelled.is_set()

    def phase_finish(self, phase_name: str) -> None:
        """A phase ends."""
        self._steps.pop(phase_name, None)

    def _tell(self, phase: str, done: int) -> None:
        now = time.monotonic()
        if now - self._last < OFTEN:
            return
        self._last = now
        self._events.send("step", what=readable(phase), done=done, total=self._steps.get(phase, 0))


class ErrorRecorder(trt.IErrorRecorder):
    """Errors with their codes, of which the log has only the text."""

    def __init__(self) -> None:
        trt.IErrorRecorder.__init__(self)
        self.errors: list[tuple[Any, str]] = []

    def num_errors(self) -> int:
        """How many there are."""
        return len(self.errors)

    def get_error_code(self, arg0: int) -> Any:
        """Code of one."""
        return self.errors[arg0][0]

    def get_error_desc(self, arg0: int) -> str:
        """Text of one."""
        return self.errors[arg0][1]

    def has_overflowed(self) -> bool:
        """Never: there is room."""
        return False

    def clear(self) -> None:
        """Forget them."""
        self.errors.clear()

    def report_error(self, arg0: Any, arg1: str) -> bool:
        """Take one. True would mean that it is fatal."""
        self.errors.append((arg0, arg1))
        return False


class PlanWriter(trt.IStreamWriter):
    """Writes the plan as it is produced, so that it is never whole in memory twice."""

    def __init__(self, path: Path, events: Events) -> None:
        trt.IStreamWriter.__init__(self)
        self._file = path.open("xb")
        self._events = events
        self.written = 0
        self.failed: OSError | None = None

    def write(self, data: bytes) -> int:
        """A part of the plan; 0 tells the builder that it could not be written."""
        try:
            self._file.write(data)
        except OSError as error:
            self.failed = error
            return 0
        self.written += len(data)
        self._events.send(
            "step", what=f"writing the plan, {self.written >> 20} MiB", done=0, total=0
        )
        return len(data)

    def close(self) -> None:
        """Flush and close; a full disk may show only here."""
        try:
            self._file.close()
        except OSError as error:
            self.failed = self.failed or error
