"""The cache of a decoder whose engine writes keys and values where they are."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_ort_memory import DEVICES, zeros
from lepton_compile.runtime.loader_past import past_of

__all__ = ["SharedCache"]


class SharedCache:
    """Buffers that past and present share, written in place; rows are packed to the left."""

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        from onnxruntime import OrtValue

        self.batch, self.capacity, self.session = batch, capacity, model.session
        self.device, self.inputs = DEVICES[model.target], model.inputs
        self.value = OrtValue.ortvalue_from_numpy
        self.buffers = [
            (past, present, zeros(shape, dtype, self.device))
            for past, present, shape, dtype in past_of(model, batch, capacity)
        ]
        # Bound values point into these arrays, so that all of them stay here.
        shape = batch, 1, model.manifest["generation"]["vocabulary"]
        self.logits = np.empty(shape, model.outputs["logits"]["dtype"])
        self.keep = np.array(1, np.int64)
        self.pieces = bool(model.cache.get("pieces")) and model.target == "ort-cpu"
        self.least = max((model.engine.get("kernels") or {}).get("piece") or 0, 16)
        self.read: list[list[int]] = [[]] * batch  # prompts that the buffers hold

    def close(self) -> None:
        """Let the buffers go."""
        self.buffers = []

    def widen(self, capacity: int) -> None:
        """Make room for more tokens; what is held stays."""
        for at, (past, present, old) in enumerate(self.buffers):
            held = old.numpy()
            made = np.zeros((*held.shape[:2], capacity, held.shape[3]), held.dtype)
            made[:, :, : self.capacity] = held
            self.buffers[at] = past, present, self.value(made)
        self.capacity = capacity

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts; those of equal length go together.

        What a prompt alone in its length begins with, as the last one in its place did, is held.
        """
        self.lengths, at = np.array([len(row) for row in rows]), 0
        for _, group in groupby(rows, len):
            ids = np.array(list(group), np.int64)
            held = self._held(at, ids[0]) if self.pieces and len(ids) == 1 else 0
            self.binding = self.bound(slice(at, at := at + len(ids)))
            self._run(ids[:, held:], np.ones_like(ids))
        self.read[: len(rows)] = map(list, rows)  # callers have those themselves
        self.binding = self.bound(slice(0, len(rows)))
        return self._scores()

    def _held(self, at: int, ids: np.ndarray) -> int:
        """How many tokens of a prompt need not be read again.

        So many are left to read, and were read, that our kernels give the same logits to the last
        bit: rows go by 16, a few in other ways. A row that had ended wrote over its last token.
        """
        most = len(ids) - self.least if len(self.read[at]) >= self.least else 0
        before = np.array(self.read[at][:-1], np.int64)[: max(most, 0)]
        return int(np.cumprod(before == ids[: len(before)]).sum()) // 16 * 16

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row; a row that is not alive stays where it is."""
        self.lengths += alive
        mask = np.arange(self.lengths.max()) < self.lengths[:, None]
        self._run(np.array(tokens, np.int64)[:, None], mask.astype(np.int64))
        return self._scores()

    def _scores(self) -> np.ndarray:
        return self.logits[: len(self.lengths), 0].astype(np.float32, copy=False)

    def bound(self, rows: slice, logits: Any = None) -> Any:
        """A binding to the buffers of some rows."""
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("logits_to_keep", self.value(self.keep))
        binding.bind_ortvalue_output("logits", logits or self.value(self.logits[rows]))
        for past, present, buffer in self.buffers:
            shape, size = buffer.shape(), buffer.tensor_size_in_bytes()
            start = buffer.data_ptr() + rows.start * (size // shape[0])
            part = [rows.stop - rows.start, *shape[1:]]
            where = (self.device, 0, buffer.element_type(), part, start)
            binding.bind_input(past, *where)
            binding.bind_output(present, *where)
        return binding

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> None:
        # Binding copies to a device: an array that changes later would go on with its old numbers.
        self.binding.bind_ortvalue_input("input_ids", self.value(ids))
        self.binding.bind_ortvalue_input("attention_mask", self.value(mask))
        if "position_ids" in self.inputs:
            from lepton_compile.runtime.loader_positions import counted

            places = counted(mask, ids.shape[1])
            self.binding.bind_ortvalue_input("position_ids", self.value(places))
        self.session.run_with_iobinding(self.binding)
