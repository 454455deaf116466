"""Engines of ONNX Runtime: how a session is opened, and the key/value caches of its decoders."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from ctypes import CDLL
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import UnfitError, refuse

__all__ = ["PROVIDERS", "NoCache", "PastCache", "SharedCache", "check_onnxruntime", "open_session"]

PROVIDERS = {
    "ort-cpu": ["CPUExecutionProvider"],
    "ort-cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
DEVICES = {"ort-cpu": "cpu", "ort-cuda": "cuda"}  # Where the caches of an engine lie.
BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16: numpy has no such type


def check_onnxruntime(engine: Mapping[str, Any]) -> None:
    """Refuse before any file is read where it is plain that this machine cannot run ``engine``."""
    cuda = PROVIDERS[engine["target"]][0].startswith("CUDA")
    needed = f"onnxruntime{'-gpu' if cuda else ''}{_least(engine)}"
    known = "onnxruntime" in sys.modules or find_spec("onnxruntime")
    refuse(not known, f"this engine needs onnxruntime: pip install '{needed}'", UnfitError)
    if cuda:
        try:
            CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        except OSError as error:
            raise UnfitError(f"there is no NVIDIA driver here: {error}") from None


def _least(engine: Mapping[str, Any]) -> str:
    """The onnxruntime that the engine asks for, such as ``>=1.30``."""
    named = (v for name, v in engine["requires"].items() if name.startswith("onnxruntime"))
    return str(next(named, ">=1"))


def open_session(path: Path, engine: Mapping[str, Any], threads: int) -> Any:
    """An onnxruntime.InferenceSession of the model at ``path``, on the device of its target."""
    least = _least(engine)
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnfitError(f"onnxruntime does not import: {error}") from None
    found, wanted = (v.strip(">=").split(".")[:2] for v in (ort.__version__, least))
    old = [*map(int, found)] < [*map(int, wanted)]
    refuse(old, f"this engine needs onnxruntime{least}, found {ort.__version__}", UnfitError)
    providers = PROVIDERS[engine["target"]]
    if providers[0].startswith("CUDA"):
        missing = providers[0] not in ort.get_available_providers()
        refuse(
            missing, "this onnxruntime has no CUDA: pip install onnxruntime-gpu instead", UnfitError
        )
        with redirect_stdout(sys.stderr):
            ort.preload_dlls()  # CUDA and cuDNN from pip packages, where there are such
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Threads that spin for their next piece of work, not sleep, make a token a sixth faster.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
    if engine.get("precision") == "int8" and _saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise UnfitError(f"onnxruntime cannot open {path.name}: {error}") from error
    # A provider that does not start is left out with no more than a line on stderr.
    idle = providers[0] not in session.get_providers()
    refuse(idle, f"onnxruntime could not start {providers[0]}: see what it wrote above", UnfitError)
    return session


def _saturates() -> bool:
    """Whether products of unsigned and signed bytes overflow 16 bits here.

    They do on x86 without VNNI, where onnxruntime offers exact, slower kernels instead; see
    kOrtSessionOptionsAvx2PrecisionMode in onnxruntime_session_options_config_keys.h. It would take
    the slower ones on a machine with VNNI as well, so that is looked up here.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return not {"avx512_vnni", "avx_vnni"} & set(flags.split())


class SharedCache:
    """Buffers that past and present share, written in place; rows are packed to the left."""

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        from onnxruntime import OrtValue

        self.batch, self.capacity, self.session = batch, capacity, model.session
        self.device = DEVICES[model.target]
        self.value = OrtValue.ortvalue_from_numpy
        self.buffers = [
            (past, present, _zeros(shape, dtype, self.device))
            for past, present, shape, dtype in model.past(batch, capacity)
        ]
        # Bound values point into these arrays, so that all of them stay here.
        self.logits = np.empty((batch, 1, model.vocabulary), model.outputs["logits"]["dtype"])
        self.keep = np.array(1, np.int64)

    def close(self) -> None:
        """Let the buffers go."""
        self.buffers = []

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts; those of equal length go together."""
        self.lengths, at = np.array([len(row) for row in rows]), 0
        for _, group in groupby(rows, len):
            ids = np.array(list(group), np.int64)
            self._bind(slice(at, at := at + len(ids)))
            self._run(ids, np.ones_like(ids))
        self._bind(slice(0, len(rows)))
        return self._scores()

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row; a row that is not alive stays where it is."""
        self.lengths += alive
        mask = np.arange(self.lengths.max()) < self.lengths[:, None]
        self._run(np.array(tokens, np.int64)[:, None], mask.astype(np.int64))
        return self._scores()

    def _scores(self) -> np.ndarray:
        return self.logits[: len(self.lengths), 0].astype(np.float32, copy=False)

    def _bind(self, rows: slice) -> None:
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("logits_to_keep", self.value(self.keep))
        self.binding.bind_ortvalue_output("logits", self.value(self.logits[rows]))
        for past, present, buffer in self.buffers:
            shape, size = buffer.shape(), buffer.tensor_size_in_bytes()
            start = buffer.data_ptr() + rows.start * (size // shape[0])
            part = [rows.stop - rows.start, *shape[1:]]
            where = (self.device, 0, buffer.element_type(), part, start)
            self.binding.bind_input(past, *where)
            self.binding.bind_output(present, *where)

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> None:
        # Binding copies to a device: an array that changes later would go on with its old numbers.
        self.binding.bind_ortvalue_input("input_ids", self.value(ids))
        self.binding.bind_ortvalue_input("attention_mask", self.value(mask))
        self.session.run_with_iobinding(self.binding)


def _zeros(shape: tuple[int, ...], dtype: str, device: str) -> Any:
    """An OrtValue of zeros: what lies beyond a row's end may be multiplied by zero, so no NaN."""
    from onnxruntime import OrtValue

    if dtype != "bfloat16":
        return OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype), device, 0)
    value = OrtValue.ortvalue_from_shape_and_type(list(shape), BFLOAT16, device, 0)
    value.update_inplace(np.zeros(shape, np.uint16))
    return value


class PastCache:
    """For an engine that returns its cache grown: what one step gives goes into the next.

    Rows of different lengths run apart, so that none is padded: where padding may lie differs
    between the ways an engine can keep its cache.
    """

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        self.model, self.batch, self.capacity = model, batch, capacity
        self.device = DEVICES[model.target]

    def close(self) -> None:
        """Let the buffers go."""
        self.groups: list[tuple[list[int], int, list[Any]]] = []

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts."""
        self.logits = np.zeros((len(rows), self.model.vocabulary), np.float32)
        self.groups = []
        lengths = [len(row) for row in rows]
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        for length, group in groupby(order, lengths.__getitem__):
            numbers = list(group)
            empty = [_zeros(s, d, self.device) for *_, s, d in self.model.past(len(numbers), 0)]
            past = self._run(numbers, np.array([rows[n] for n in numbers]), length, empty)
            self.groups.append((numbers, length, past))
        return self.logits

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row; groups without a row that is alive stop."""
        groups, self.groups = self.groups, []
        for numbers, length, past in groups:
            if any(alive[n] for n in numbers):
                ids = np.array([[tokens[n]] for n in numbers])
                past = self._run(numbers, ids, length + 1, past)
                self.groups.append((numbers, length + 1, past))
        return self.logits

    def _run(self, numbers: list[int], ids: np.ndarray, total: int, past: list[Any]) -> list[Any]:
        """Run rows ``numbers``, which have ``total`` tokens by now; their cache afterwards."""
        from onnxruntime import OrtValue

        value, ones = OrtValue.ortvalue_from_numpy, np.ones((len(ids), total), np.int64)
        given = {"input_ids": ids, "attention_mask": ones, "logits_to_keep": np.array(1)}
        binding, names = self.model.session.io_binding(), list(self.model.past(1, 0))
        for name in given.keys() & self.model.inputs.keys():
            binding.bind_ortvalue_input(name, value(np.asarray(given[name], np.int64)))
        binding.bind_output("logits", "cpu")
        for (before, after, *_), held in zip(names, past, strict=True):
            binding.bind_ortvalue_input(before, held)
            binding.bind_output(after, self.device)
        self.model.session.run_with_iobinding(binding)
        logits, *grown = binding.get_outputs()
        self.logits[numbers] = logits.numpy()[:, -1]
        return list(grown)


class NoCache:
    """For an engine without a cache: every step runs all tokens again."""

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        self.model, self.batch, self.capacity = model, batch, capacity

    def close(self) -> None:
        """There is nothing to let go."""

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts."""
        self.rows = [list(row) for row in rows]
        last = [len(row) - 1 for row in rows]
        return np.asarray(self.model.logits(self.rows)[range(len(rows)), last])

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row."""
        return self.start([[*row, token] for row, token in zip(self.rows, tokens, strict=True)])
