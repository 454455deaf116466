"""A decoder's plan: its caches, and token after token.

The caches stay on the device at the engine's full capacity; ``present`` is ``past``. New keys of
row b go behind the ``past_lengths[b]`` tokens that it holds, so that no mask is needed. Each
prompt is read alone, into its row of the caches, and then all rows go on together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import refuse
from lepton_compile.runtime.loader_plan import Plan
from lepton_compile.runtime.loader_tensors import NUMPY, from_engine, item_size

__all__ = ["Bucket", "Decoder", "DeviceCache"]

ALIGNMENT = 256  # Of the addresses that an engine takes, in bytes.
CACHE_LENGTH = "cache_length"  # Input of some decoders: tokens that each row has after a step.


class Decoder(Plan):
    """An engine that continues prompts: one context reads them, it or another takes the steps."""

    def open(self, plan: bytes, kernels: Any) -> None:
        """Deserialize the plan, make its contexts, and find out about the caches."""
        super().open(plan, kernels)
        pasts = [n for n in self.inputs if len(self.engine.get_tensor_shape(n)) == 4]
        presents = [n for n in self.outputs if n != "logits"]
        ask, written = self.engine.get_aliased_input_tensor, self.entry.get("aliases") or {}
        # The manifest speaks where the runtime is silent, as it is about a plugin's aliases.
        self.alias = {name: ask(name) or written.get(name, "") for name in presents}
        apart = [n for n, past in self.alias.items() if past not in pasts]
        refuse(apart, f"this loader needs caches that are written in place; {apart} are not")
        self.pasts = {n: tuple(self.engine.get_tensor_shape(n))[1:] for n in pasts}
        said = (self.entry.get("cache") or {}).get("buckets")
        self.capacities: list[int] = said or [next(iter(self.pasts.values()))[1]]
        self.capacity, self._buckets = self.capacities[-1], dict[int, Bucket]()
        # A cache that grows need not hold at once all that may come.
        self.ahead = self.capacities[0] // 2 if len(self.capacities) > 1 else 0
        self.vocabulary = self.engine.get_tensor_shape("logits")[-1]
        self.phases = self.engine.num_optimization_profiles // len(self.capacities)  # 1 or 2
        self.most = self.engine.get_tensor_profile_shape("input_ids", self.phases - 1)[2][0]
        self.level = CACHE_LENGTH in self.inputs  # rows of one length alone may go together
        # A GPU without room for so much as one row is found out while there are other engines.
        self._spare: DeviceCache | None = DeviceCache(self, 1, 1)
        self.device.wait(self.stream)

    def bucket(self, need: int) -> Bucket:
        """The smallest caches with room for ``need`` tokens in each row."""
        fits = [number for number, size in enumerate(self.capacities) if size >= need]
        refuse(not fits, f"the cache holds {self.capacity} tokens, not {need}")
        if fits[0] not in self._buckets:
            self._buckets[fits[0]] = Bucket(self, fits[0])
        return self._buckets[fits[0]]

    @property
    def hidden(self) -> Sequence[str]:
        """Outputs that stay on the device."""
        return tuple(self.alias)

    def new_cache(self, batch: int, need: int) -> DeviceCache:
        """Caches for ``batch`` rows of ``need`` tokens."""
        refuse(batch > self.most, f"{batch} prompts, and the engine takes {self.most} at a time")
        spare, self._spare = self._spare, None
        if spare is not None and spare in self.caches:
            if batch <= spare.batch and need <= spare.capacity:
                return spare
            spare.close()
        return DeviceCache(self, batch, need)

    def run(self, names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Logits of whole rows, packed to the left, from empty caches.

        The engine gives those of the last position alone, so that for all of them the rows are
        read token by token, together.
        """
        unknown = [name for name in names if name != "logits"]
        refuse(unknown, f"{unknown} stay on the device: generate() continues prompts")
        full = [name for name, array in feeds.items() if array.ndim == 4 and array.shape[2]]
        refuse(full, f"{full} stay on the device: generate() continues prompts")
        ids, lengths = feeds["input_ids"], feeds["attention_mask"].sum(axis=1)
        refuse(ids.shape[1] > self.capacity, f"the cache holds {self.capacity} tokens")
        keep, cache = int(feeds.get("logits_to_keep", 0)), self.new_cache(*ids.shape)
        try:
            if keep == 1 and (lengths == ids.shape[1]).all():
                return [cache.start(ids.tolist())[:, None].copy()]
            found = np.empty((*ids.shape, self.vocabulary), np.float32)
            cache.held = np.zeros(len(ids), np.int32)
            for at in range(ids.shape[1]):
                found[:, at] = cache.step(ids[:, at].tolist(), (lengths > at).tolist())
            return [found[:, -keep:]]
        finally:
            cache.close()


class Bucket:
    """What runs in caches of one capacity: shapes and bytes of a row, a context a profile."""

    def __init__(self, plan: Decoder, number: int) -> None:
        self.capacity, first = plan.capacities[number], plan.phases * number
        self.layers = {n: (s[0], self.capacity, s[2]) for n, s in plan.pasts.items()}
        sizes = {n: int(np.prod(s)) for n, s in self.layers.items()}
        self.sizes = {n: size * item_size(plan.kinds[n]) for n, size in sizes.items()}
        self.longest = plan.engine.get_tensor_profile_shape("input_ids", first)[2][1]
        joint, graphs = plan.phases == 1, not plan.level
        self.prefill = plan.context(first, graphs=joint and graphs)
        self.decode = self.prefill if joint else plan.context(first + 1, graphs=graphs)


class DeviceCache:
    """Keys and values of some rows on the device, and what goes in and out with each token."""

    def __init__(self, plan: Decoder, batch: int, need: int) -> None:
        self.plan, self.batch, self.bucket = plan, batch, plan.bucket(need)
        self.held = np.zeros(batch, np.int32)
        uneven = [n for n, size in self.bucket.sizes.items() if size % ALIGNMENT]
        refuse(uneven and batch > 1, f"rows of {uneven} are not aligned: one prompt at a time")
        self.caches: dict[str, int] = {}
        self._memory: list[int] = []
        self._pinned: list[np.ndarray] = []
        plan.caches.append(self)
        try:
            self._allocate()
        except Exception:
            self.close()
            raise

    def _allocate(self) -> None:
        plan, batch = self.plan, self.batch
        for name, size in self.bucket.sizes.items():
            self.caches[name] = plan.device.malloc(size * batch)
            # What lies beyond a row's end is multiplied by zero, so that it must not be NaN.
            plan.device.zero(self.caches[name], size * batch, plan.stream)
        kind = plan.kinds["logits"]
        self._ids, self._lengths = self._take(8 * batch), self._take(4 * batch)
        self._logits = self._take(plan.vocabulary * item_size(kind) * batch)
        self._ids_here = self._host((batch, 1), np.int64)
        self._lengths_here = self._host((batch,), np.int32)
        self._scores = self._host((batch, plan.vocabulary), NUMPY[kind])

    def _take(self, size: int) -> int:
        self._memory.append(self.plan.device.malloc(size))
        return self._memory[-1]

    def _host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._pinned.append(self.plan.device.host(size))
        array: np.ndarray = self._pinned[-1].view(dtype).reshape(shape)
        return array

    @property
    def capacity(self) -> int:
        """Tokens that a row has room for, as long as it does not grow."""
        return self.bucket.capacity

    def close(self) -> None:
        """Give the memory back."""
        if self in self.plan.caches:
            self.plan.caches.remove(self)
            self.plan.device.wait(self.plan.stream)
            self.bucket.decode.forget()
            for address in [*self.caches.values(), *self._memory]:
                self.plan.device.free(address)
            for array in self._pinned:
                self.plan.device.free_host(array)

    def start(self, rows: list[list[int]]) -> np.ndarray:
        """Logits (batch, vocabulary) after the prompts, each read alone into its row."""
        self.held = np.zeros(len(rows), np.int32)
        most = self.bucket.longest
        pieces = [
            (row, ids[at : at + most])
            for row, ids in enumerate(rows)
            for at in range(0, len(ids), most)
        ]
        self._one_by_one(self.bucket.prefill, pieces)
        return self._result(len(rows))

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        """Logits after one more token per row; a row that is not alive stays where it is."""
        refuse(self not in self.plan.caches, "this model is closed")
        if (need := int((self.held + np.array(alive, np.int32)).max())) > self.capacity:
            from lepton_compile.runtime.loader_trt_buckets import grow

            grow(self, need)
        if self.plan.level and len(set(self.held)) > 1:
            pieces = [(row, [tokens[row]]) for row, lives in enumerate(alive) if lives]
            self._one_by_one(self.bucket.decode, pieces)
            return self._result(len(tokens))
        self._together(tokens)
        self.held = self.held + np.array(alive, np.int32)
        return self._result(len(tokens))

    def _together(self, tokens: list[int]) -> None:
        count, device, stream = len(tokens), self.plan.device, self.plan.stream
        self._ids_here[:count, 0], self._lengths_here[:count] = tokens, self.held
        device.copy_in(self._ids, self._ids_here[:count], stream)
        device.copy_in(self._lengths, self._lengths_here[:count], stream)
        self._run(self.bucket.decode, 0, count, 1, (self._ids, self._lengths, self._logits))
        device.copy_out(self._scores[:count], self._logits, stream)

    def _one_by_one(self, context: Any, pieces: list[tuple[int, list[int]]]) -> None:
        """Feed each piece to its row. All go to the device at once, each aligned as it must be."""
        refuse(self not in self.plan.caches, "this model is closed")
        device, stream = self.plan.device, self.plan.stream
        widths = [ALIGNMENT + _aligned(8 * len(ids)) for _, ids in pieces]
        starts = np.cumsum([0, *widths])
        staged = np.zeros(starts[-1], np.uint8)
        there = self.plan.room("staged", staged.nbytes)
        ahead = self.held.copy()
        for (row, ids), start in zip(pieces, starts, strict=False):
            staged[start : start + 4].view(np.int32)[:] = ahead[row]
            at = start + ALIGNMENT
            staged[at : at + 8 * len(ids)].view(np.int64)[:] = ids
            ahead[row] += len(ids)
        device.copy_in(there, staged, stream)
        size = self.plan.vocabulary * item_size(self.plan.kinds["logits"])
        logits = self.plan.room("logits", size)
        for (row, ids), start in zip(pieces, starts.tolist(), strict=False):
            places = there + start + ALIGNMENT, there + start, logits
            self._run(context, row, 1, len(ids), places)
            self.held[row] += len(ids)
            device.copy_out(self._scores[row], logits, stream)
        self.plan.wait()  # before the staged bytes go

    def _run(
        self, context: Any, row: int, count: int, width: int, places: tuple[int, int, int]
    ) -> None:
        """Queue ``width`` tokens for each of ``count`` rows from ``row`` on."""
        shapes = {"input_ids": (count, width), "past_lengths": (count,)}
        addresses = dict(zip(("input_ids", "past_lengths", "logits"), places, strict=True))
        for name, address in self.caches.items():
            shapes[name] = (count, *self.bucket.layers[name])
            addresses[name] = address + row * self.bucket.sizes[name]
        addresses |= {n: addresses[past] for n, past in self.plan.alias.items()}
        if self.plan.level:
            self._length = np.array([self.held[row] + width], np.int64)  # read while it is queued
            shapes[CACHE_LENGTH], addresses[CACHE_LENGTH] = (1,), self._length.ctypes.data
        context.shape(shapes)
        context.place(addresses)
        context.run()

    def _result(self, count: int) -> np.ndarray:
        self.plan.wait()
        return from_engine(self._scores[:count], self.plan.kinds["logits"])


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
