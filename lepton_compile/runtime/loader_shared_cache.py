"""The cache of a decoder whose engine writes keys and values where they are."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_past import past_of

__all__ = ["SharedCache"]


class SharedCache:
    """Buffers that past and present share, written in place; rows are packed to the left."""

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        from onnxruntime import OrtValue

        self.batch, self.capacity, self.session = batch, capacity, model.session
        self.device, self.inputs, self.value = "cpu", model.inputs, OrtValue.ortvalue_from_numpy
        if model.target == "ort-cuda":
            from lepton_compile.runtime.loader_ort_cuda import DEVICE

            self.device = DEVICE
        self.buffers = list[tuple[str, str, Any]]()
        for past, present, shape, dtype in past_of(model, batch, capacity):
            if dtype == "bfloat16":
                from lepton_compile.runtime.loader_ort_cuda import bfloat16_zeros

                self.buffers.append((past, present, bfloat16_zeros(shape)))
                continue
            # What lies beyond a row's end may be multiplied by zero: it must not be NaN.
            zeros = self.value(np.zeros(shape, dtype), self.device, 0)
            self.buffers.append((past, present, zeros))
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
        more = (0, 0), (0, 0), (0, capacity - self.capacity), (0, 0)
        for at, (past, present, held) in enumerate(self.buffers):
            self.buffers[at] = past, present, self.value(np.pad(held.numpy(), more))
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
            if hasattr(self.session, "see"):
                from lepton_compile.runtime.loader_seer import show

                held = show(self, at - len(ids), rows[at - len(ids) : at], held)
            if "position_offsets" in self.inputs:
                from lepton_compile.runtime.loader_axes import place

                place(self, at - len(ids), rows[at - len(ids) : at], held)
            scores = self._run(ids[:, held:], np.ones_like(ids))
        self.read[: len(rows)] = map(list, rows)  # callers have those themselves
        self.binding = self.bound(slice(0, len(rows)))
        return scores

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
        return self._run(np.array(tokens, np.int64)[:, None], mask.astype(np.int64))

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

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Logits of all rows, once those that are bound have been read."""
        # Binding copies to a device: an array that changes later would go on with its old numbers.
        self.binding.bind_ortvalue_input("input_ids", self.value(ids))
        self.binding.bind_ortvalue_input("attention_mask", self.value(mask))
        if "position_ids" in self.inputs:
            from lepton_compile.runtime.loader_positions import counted

            places = counted(mask, ids.shape[1])
            self.binding.bind_ortvalue_input("position_ids", self.value(places))
        if "position_offsets" in self.inputs:
            from lepton_compile.runtime.loader_axes import ahead

            self.binding.bind_ortvalue_input("position_offsets", self.value(ahead(self, len(ids))))
        self.session.run_with_iobinding(self.binding)
        return self.logits[: len(self.lengths), 0].astype(np.float32, copy=False)
