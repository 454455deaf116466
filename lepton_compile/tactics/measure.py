"""Times and errors of the candidates for one layer, on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.runtime.loader_saturation import saturates
from lepton_compile.tactics.candidates import (
    DeclinedError,
    feeds_of,
    lowered,
    repeated,
    tactics_of,
    usual,
    weights_of,
)
from lepton_compile.tactics.clock import Clock, short, spread
from lepton_passes.lowering.ort.choices import Layer, Tactic
from lepton_passes.lowering.ort.packing import STORAGE

__all__ = ["LARGEST", "SMALLEST", "Bench", "Measured"]

SMALLEST = 1 << 16
"""Weights of a layer that is worth timing: below, a call costs more than its kernel."""

LARGEST = 1 << 20
"""Weights that are timed at most: of a larger layer its first outputs, as all take equally long."""

FEW = 32
"""Rows up to which a layer is short work: several copies of it are timed in one call, as in a
model, so that what the call itself takes does not matter."""

_COPIES = 6
_EXACT_ROWS, _EXACT_OUTPUTS = 32, 256
_STEP = 64  # outputs of a layer that is cut are a multiple: of tiles, and of halves of a gate


@dataclass(frozen=True)
class Measured:
    """What is known of the candidates for a layer.

    Attributes:
        usual: what is taken where nothing is measured.
        seconds: of a call, by candidate and number of rows.
        errors: of the result, as a part of its size.
        bytes: of the weights in the engine's file.
        failed: candidates that do not run here, and why.
        spread: median time of a call over the least, at most; large where the machine is busy.
    """

    usual: Tactic
    seconds: Mapping[Tactic, Mapping[int, float]] = field(default_factory=dict)
    errors: Mapping[Tactic, float] = field(default_factory=dict)
    bytes: Mapping[Tactic, int] = field(default_factory=dict)
    failed: Mapping[Tactic, str] = field(default_factory=dict)
    spread: float = 1.0


@dataclass(frozen=True)
class _Tried:
    """A candidate that runs; its sessions by the number of rows they are timed with."""

    error: float
    bytes: int
    sessions: Mapping[int, Any]


@dataclass(frozen=True)
class Bench:
    """Where candidates run.

    Args:
        library: our kernels.
        exact: the engine asks onnxruntime for products of bytes that do not overflow.
    """

    library: Path
    exact: bool = False

    def measure(self, layer: Layer, rows: Sequence[int], clock: Clock) -> Measured:
        """Try every candidate for a layer, in calls of so many rows."""
        cut = _cut(layer)
        feeds = {count: feeds_of(cut, count) for count in rows}
        tried: dict[Tactic, _Tried] = {}
        failed: dict[Tactic, str] = {}
        for tactic in tactics_of(layer):
            try:
                tried[tactic] = self._try(layer, cut, tactic, feeds)
            except DeclinedError as declined:
                failed[tactic] = str(declined)
            except Exception as error:  # onnxruntime raises its own types
                failed[tactic] = (str(error).splitlines() or [type(error).__name__])[0]
        default = usual(layer, list(tried))
        times: dict[int, dict[Tactic, list[float]]] = {}
        for count in rows if tried else ():
            rivals = {tactic: each.sessions[count] for tactic, each in tried.items()}
            times[count] = clock.times(rivals, feeds[count], default, cold=count <= FEW)
        return Measured(
            usual=default,
            seconds={
                tactic: {n: short(each[tactic]) / _copies(n) for n, each in times.items()}
                for tactic in tried
            },
            errors={tactic: each.error for tactic, each in tried.items()},
            bytes={tactic: each.bytes for tactic, each in tried.items()},
            failed=failed,
            spread=max(map(spread, times.values()), default=1.0),
        )

    def _try(
        self, layer: Layer, cut: Layer, tactic: Tactic, feeds: Mapping[int, Mapping[str, Any]]
    ) -> _Tried:
        error, size = self._error(layer, tactic), _size(layer, tactic)
        model = lowered(cut, tactic)
        sessions = {count: self._session(model, _copies(count)) for count in feeds}
        for count, session in sessions.items():
            session.run(None, feeds[count])  # what does not run says so here
        return _Tried(error, size, sessions)

    def _error(self, layer: Layer, tactic: Tactic) -> float:
        """Of the product alone, for a few of its outputs."""
        few = replace(layer, rows=min(layer.rows, _EXACT_OUTPUTS), activation=0, gated=0)
        feeds = feeds_of(few, _EXACT_ROWS)
        q, scale = weights_of(few)
        group = few.group or few.columns
        truth = feeds["x"] @ (q * np.repeat(scale.reshape(few.rows, -1), group, axis=1)).T
        y = self._session(lowered(few, tactic)).run(["y"], feeds)[0]
        return float(np.linalg.norm(y - truth) / np.linalg.norm(truth))

    def _session(self, model: ir.Model, copies: int = 1) -> Any:
        """As loaders open one, but with one thread: to wake up another takes as long as a small
        layer, now more, now less (times of a call differed by 5 to 10 times on an idle machine of
        2 cores), and all candidates share out their work alike."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        if self.exact:
            value = str(int(saturates()))
            options.add_session_config_entry("session.x64quantprecision", value)
        options.register_custom_ops_library(str(self.library))
        data = repeated(model, copies)
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _copies(rows: int) -> int:
    return _COPIES if rows <= FEW else 1


def _cut(layer: Layer) -> Layer:
    """As many of its outputs as are timed."""
    outputs = max(LARGEST // layer.columns // _STEP, 1) * _STEP
    return replace(layer, rows=min(layer.rows, outputs))


def _size(layer: Layer, tactic: Tactic) -> int:
    """Bytes of the weights of a layer; all its outputs are alike."""
    few = replace(layer, rows=min(layer.rows, _EXACT_OUTPUTS))
    values = lowered(few, tactic).graph.initializers.values()
    tensors = [value.const_value for value in values if value.const_value is not None]
    # What has the same bytes is written once.
    sizes = {t.metadata_props.get(STORAGE, t.name): t.nbytes for t in tensors}
    return sum(sizes.values()) * layer.rows // few.rows
