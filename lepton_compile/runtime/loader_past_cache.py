"""The cache of a decoder whose engine gives keys and values anew."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_past import past_of

__all__ = ["PastCache"]


class PastCache:
    """For an engine that returns its cache grown: what one step gives goes into the next.

    Rows of different lengths run apart, so that none is padded: where padding may lie differs
    between the ways an engine can keep its cache.
    """

    def __init__(self, model: Any, batch: int, capacity: int) -> None:
        from onnxruntime import OrtValue

        self.model, self.batch, self.capacity = model, batch, capacity
        self.device = "cpu"
        if model.target == "ort-cuda":
            from lepton_compile.runtime.loader_ort_cuda import DEVICE

            self.device = DEVICE
        self.session, self.value = model.session, OrtValue.ortvalue_from_numpy

    def close(self) -> None:
        """Let the buffers go."""
        self.groups: list[tuple[list[int], int, list[Any]]] = []

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts."""
        self.logits = np.zeros(
            (len(rows), self.model.manifest["generation"]["vocabulary"]), np.float32
        )
        self.groups = []
        lengths = [len(row) for row in rows]
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        for length, group in groupby(order, lengths.__getitem__):
            numbers = list(group)
            past = [*self._empty(len(numbers))]
            past = self._run(numbers, np.array([rows[n] for n in numbers]), length, past)
            self.groups.append((numbers, length, past))
        return self.logits

    def _empty(self, rows: int) -> Iterator[Any]:
        for *_, shape, dtype in past_of(self.model, rows, 0):
            if dtype == "bfloat16":
                from lepton_compile.runtime.loader_ort_cuda import bfloat16_zeros

                yield bfloat16_zeros(shape)
                continue
            yield self.value(np.zeros(shape, dtype), self.device, 0)

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
        ones = np.ones((len(ids), total), np.int64)
        given = {"input_ids": ids, "attention_mask": ones, "logits_to_keep": np.array(1)}
        if "position_ids" in self.model.inputs:
            from lepton_compile.runtime.loader_positions import counted

            given["position_ids"] = counted(ones, ids.shape[1])
        binding, names = self.session.io_binding(), list(past_of(self.model, 1, 0))
        for name in given.keys() & self.model.inputs.keys():
            binding.bind_ortvalue_input(name, self.value(np.asarray(given[name], np.int64)))
        binding.bind_output("logits", "cpu")
        for (before, after, *_), held in zip(names, past, strict=True):
            binding.bind_ortvalue_input(before, held)
            binding.bind_output(after, self.device)
        self.session.run_with_iobinding(binding)
        logits, *grown = binding.get_outputs()
        self.logits[numbers] = logits.numpy()[:, -1]
        return list(grown)
