"""Continue prompts: how a token is drawn, what comes of a prompt, and the loop over the engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from lepton_compile.runtime.loader_guard import LoaderError

__all__ = ["Generation", "Sampling", "Writer"]

ROUND = 256  # Buffers have room for a multiple of this many tokens.


class Sampling(NamedTuple):
    """How a token is drawn from logits; with the defaults, the likeliest."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def pick(self, row: np.ndarray, seen: list[int], draw: np.random.Generator) -> int:
        """One token id from ``row``, the (vocabulary,) logits, which may be overwritten."""
        if (penalty := self.repetition_penalty) != 1:
            old = row[seen]
            row[seen] = np.where(old > 0, old / penalty, old * penalty)
        if self.temperature == 0:
            return int(row.argmax())
        ids, weights = self.candidates(row)
        return int(ids[_draw(weights, draw.random())])

    def candidates(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids that may be drawn, and their weights: 1 for the likeliest, not summing to one."""
        ids = _largest(row, self.top_k) if self.top_k else np.arange(len(row))
        scores = row[ids] if self.top_k else row
        weights = np.exp((scores - row.max()) / np.float32(self.temperature))
        if self.top_p < 1:
            keep = _nucleus(weights, self.top_p)
            ids, weights = ids[keep], weights[keep]
        if self.min_p > 0:
            keep = weights >= self.min_p
            ids, weights = ids[keep], weights[keep]
        return ids, weights


def _draw(weights: np.ndarray, at: float) -> int:
    """The position where the running sum of ``weights`` passes ``at`` (0 to 1) of the whole."""
    starts = np.arange(0, len(weights), 512)
    sums = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
    block = int(np.searchsorted(sums[:-1], at * sums[-1], "right"))
    rest = at * sums[-1] - (sums[block - 1] if block else 0.0)
    inside = weights[starts[block] : starts[block] + 512].cumsum(dtype=np.float64)
    return int(starts[block] + np.searchsorted(inside[:-1], rest, "right"))


def _nucleus(weights: np.ndarray, top_p: float) -> np.ndarray:
    """Positions of the fewest largest weights that hold ``top_p`` of the whole, largest first."""
    enough, count = top_p * weights.sum(dtype=np.float64), 128
    while True:
        order = _largest(weights, count)
        size = 1 + int(np.searchsorted(weights[order].cumsum(dtype=np.float64), enough))
        if size <= len(order) or len(order) == len(weights):
            return order[:size]
        count *= 8


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` largest values, largest first.

    At least ``count`` values reach the count-th largest of the maxima of groups, so that maximum
    bounds the answer from below, and the whole row is never sorted.
    """
    groups, ids = len(values) // 64, np.arange(len(values))
    if count < groups:
        maxima = values[: groups * 64].reshape(64, groups).max(axis=0)
        ids = np.flatnonzero(values >= np.partition(maxima, groups - count)[groups - count])
    return ids[np.argsort(-values[ids], kind="stable")[:count]]


class Generation:
    """What one prompt led to.

    ``tokens`` are the new ids without the one that ended it, ``finish`` is "eos", "stop" or
    "length", ``timings`` are the seconds and tokens per second of the whole batch.
    """

    def __init__(self, ids: list[int], words: Any, draw: np.random.Generator) -> None:
        self.ids, self.words, self.draw = ids, words, draw
        self.tokens, self.finish, self.timings = list[int](), "", dict[str, float]()

    @property
    def text(self) -> str | None:
        """The new text, None where the artifact has no tokenizer."""
        return self.words.text if self.words else None

    def push(self, token: int, ends: set[int], limit: int) -> str | int | None:
        """Take a token in; the text that is certain by now, or the token without a tokenizer."""
        new = [] if token in ends else [token]
        self.tokens += new
        self.finish = "length" if len(self.tokens) == limit else "" if new else "eos"
        if not self.words:
            return token if new else None
        piece: str = self.words.push(new, final=bool(self.finish))
        self.finish = "stop" if self.words.stopped else self.finish
        return piece or None


class Writer:
    """Continues prompts with ``model``, and keeps its buffers for the next."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.known = model.manifest["generation"] or {}
        own, known = model.engine.get("cache") or {}, model.cache or {"max_length": 0}
        self.room = min(known["max_length"], own.get("capacity", sys.maxsize))
        self._spare: list[Any] = []

    def generate(
        self,
        prompt: Any,
        chat: Any,
        sampling: tuple[Any, ...],
        ending: tuple[int | None, list[str], set[int]],
        seed: int | None,
        stream: bool,
    ) -> Any:
        """What ``Model.generate`` says; ``ending``: most new tokens, stop texts, stop tokens."""
        wanted, stop, ends = ending
        first = None if isinstance(prompt, str) else next(iter(prompt), None)
        many = isinstance(first, str | list | tuple | np.ndarray)
        if stream and many:
            raise LoaderError("stream=True takes one prompt")
        self._check(how := Sampling(*sampling), wanted)
        prompts = [self._ids(one, chat) for one in (prompt if many else [prompt])]
        limit = self._limit(prompts, wanted)
        words: list[Any] = [None] * len(prompts)
        if stop or self.model.manifest["tokenizer"]:
            words = [self.model.text.words(ids, stop, live=stop or stream) for ids in prompts]
        draws = np.random.default_rng(seed).spawn(len(prompts))
        rows = [Generation(*row) for row in zip(prompts, words, draws, strict=True)]
        pieces = self._pieces(rows, limit, how, ends.union(self.known.get("eos", ())))
        if stream:
            return pieces
        for _ in pieces:
            pass
        return rows if many else rows[0]

    def _check(self, how: Sampling, limit: int | None) -> None:
        if self.model.task != "text-generation":
            raise LoaderError(f"this model does {self.model.task}: it does not generate")
        legal = how.temperature >= 0 and how.top_k >= 0 and how.repetition_penalty > 0
        if not (legal and 0 < how.top_p <= 1 and 0 <= how.min_p <= 1):
            raise LoaderError(f"out of its range: one of {how}")
        if limit is not None and limit < 1:
            raise LoaderError(f"out of its range: max_new_tokens={limit}")

    def _limit(self, prompts: list[list[int]], wanted: int | None) -> int:
        """How many new tokens there will be at most, once the prompts are found to fit."""
        if not prompts or not all(prompts):
            raise LoaderError("the prompt is empty")
        width = max(map(len, prompts))
        self.model.fit("input_ids", [ids + [ids[0]] * (width - len(ids)) for ids in prompts])
        room = self.room or self.model.manifest["ranges"]["sequence"][1]
        limit = max(min(128, room - width), 1) if wanted is None else wanted
        if width + limit > room:
            raise LoaderError(f"{width} tokens and {limit} new ones, but the cache holds {room}")
        return limit

    def _ids(self, prompt: Any, chat: Any) -> list[int]:
        words = chat or isinstance(prompt, str) or isinstance(next(iter(prompt), 0), dict)
        return [int(token) for token in (self.model.text.encode(prompt, chat) if words else prompt)]

    def close(self) -> None:
        """Let the buffers go."""
        while self._spare:
            self._spare.pop().close()

    def _cache(self, batch: int, need: int) -> Any:
        """Buffers with room for ``need`` tokens: those of the last call where they are enough."""
        cache = self._spare.pop() if self._spare else None
        if cache is not None and cache.batch >= batch and cache.capacity >= need:
            return cache
        if cache is not None:
            cache.close()
        return self.model.new_cache(batch, min(-(-need // ROUND) * ROUND, self.room))

    def _pieces(
        self, rows: list[Generation], limit: int, how: Sampling, ends: set[int]
    ) -> Iterator[str | int]:
        """What each token completes, as it comes."""
        cache = self._cache(len(rows), max(len(row.ids) for row in rows) + limit)
        try:
            yield from self._loop(cache, rows, limit, how, ends)
        except BaseException as error:
            if not isinstance(error, GeneratorExit):  # a stream that nobody reads on is no failure
                cache.close()
                raise
        self.close()
        self._spare = [cache]

    def _loop(
        self, cache: Any, rows: list[Generation], limit: int, how: Sampling, ends: set[int]
    ) -> Iterator[str | int]:
        begin = time.perf_counter()
        logits = _run(cache.start, 0, [row.ids for row in rows])
        middle, steps = time.perf_counter(), 0
        while True:
            for row, scores in zip(rows, logits, strict=True):
                if not row.finish:
                    token = how.pick(scores, row.ids + row.tokens, row.draw)
                    if (piece := row.push(token, ends, limit)) is not None:
                        yield piece
            alive = [not row.finish for row in rows]
            if not any(alive):
                break
            steps += 1
            last = [row.tokens[-1] if row.tokens else 0 for row in rows]
            logits = _run(cache.step, steps, last, alive)
        seconds = time.perf_counter() - middle
        rate = sum(max(len(row.tokens) - 1, 0) for row in rows) / seconds
        for row in rows:
            row.timings = {"prefill_s": middle - begin, "decode_s": seconds, "tokens_per_s": rate}


def _run(call: Callable[..., np.ndarray], made: int, *given: Any) -> np.ndarray:
    """What the engine gives; its failure with the place where it happened."""
    try:
        return call(*given)
    except Exception as error:
        where = f"after {made} new tokens of {len(given[0])} rows" if made else "on the prompts"
        raise LoaderError(f"the engine failed {where}: {error}") from error
