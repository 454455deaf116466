"""What can be measured: a function each, from ``Settings`` to results, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peerbench.suites import (
    accuracy,
    compiling,
    gemma,
    loader,
    memory,
    minilm,
    scaling,
    tensorrt,
)
from peerbench.turns import Settings

__all__ = ["SUITES"]

SUITES: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "gemma": gemma.measure,
    "minilm": minilm.measure,
    "compile": compiling.measure,
    "scaling": scaling.measure,
    "loader": loader.measure,
    "accuracy": accuracy.measure,
    "memory": memory.measure,
    "tensorrt": tensorrt.measure,
}
