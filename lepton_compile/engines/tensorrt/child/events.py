"""What the child says to its parent, and how it hears that nobody is waiting any more."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

__all__ = ["Cancelled", "Events", "Failure"]

GRACE = 20.0
"""Seconds after which a cancelled child that still runs ends itself."""


class Cancelled(Exception):  # noqa: N818 - not an error
    """The parent does not want the engine any more."""


class Failure(Exception):  # noqa: N818 - a message for the parent, which makes an error of it
    """The library refused something.

    Args:
        message: what failed.
        fields: ``where``, ``found``, ``available``, ``hint`` of the error.
    """

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = {"message": message, **fields}


class Events:
    """Lines of JSON to the parent. Takes standard output over: what others print goes to stderr."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self.cancelled = threading.Event()

    def send(self, event: str, **data: Any) -> None:
        """One event. A parent that is gone counts as a cancellation."""
        line = json.dumps({"event": event, **data})
        try:
            with self._lock:
                self._file.write(line + "\n")
                self._file.flush()
        except OSError:
            self.cancelled.set()

    def watch(self) -> None:
        """Begin to listen: the end of standard input cancels."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self.cancelled.set()
        threading.Event().wait(GRACE)
        os._exit(3)
