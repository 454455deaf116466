"""Continue prompts: what comes of each, and the loop over the engine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import LoaderError, refuse
from lepton_compile.runtime.loader_sampling import Sampling

__all__ = ["Generation", "Writer", "cache_for"]

ROUND = 256  # Buffers have room for a multiple of this many tokens.


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
        how: Sampling,
        ending: tuple[int | None, list[str], set[int]],
        seed: int | None,
        stream: bool,
    ) -> Any:
        """What ``Model.generate`` says; ``ending``: most new tokens, stop texts, stop tokens."""
        wanted, stop, ends = ending
        first = None if isinstance(prompt, str) else next(iter(prompt), None)
        many = isinstance(first, str | list | tuple | np.ndarray)
        refuse(stream and many, "stream=True takes one prompt")
        self._check(how, wanted, seed)
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

    def _check(self, how: Sampling, limit: int | None, seed: int | None) -> None:
        task = self.model.task
        refuse(task != "text-generation", f"this model does {task}: it does not generate")
        legal = how.temperature >= 0 and how.top_k >= 0 and how.repetition_penalty > 0
        legal = legal and 0 < how.top_p <= 1 and 0 <= how.min_p <= 1
        refuse(not legal, f"out of its range: one of {how}")
        bad = limit is not None and limit < 1
        refuse(bad, f"out of its range: max_new_tokens={limit}")
        refuse(seed is not None and seed < 0, f"out of its range: seed={seed}")

    def _limit(self, prompts: list[list[int]], wanted: int | None) -> int:
        """How many new tokens there will be at most, once the prompts are found to fit."""
        refuse(not prompts or not all(prompts), "the prompt is empty")
        width = max(map(len, prompts))
        self.model.fit("input_ids", [ids + [ids[0]] * (width - len(ids)) for ids in prompts])
        room = self.room or self.model.manifest["ranges"]["sequence"][1]
        limit = max(min(128, room - width), 1) if wanted is None else wanted
        full = f"{width} tokens and {limit} new ones, but the cache holds {room}"
        refuse(width + limit > room, full)
        return limit

    def _ids(self, prompt: Any, chat: Any) -> list[int]:
        words = chat or isinstance(prompt, str) or isinstance(next(iter(prompt), 0), dict)
        return [int(token) for token in (self.model.text.encode(prompt, chat) if words else prompt)]

    def close(self) -> None:
        """Let the buffers go."""
        while self._spare:
            self._spare.pop().close()

    def _cache(self, batch: int, longest: int, limit: int) -> Any:
        """Buffers with room for prompts and answers: those of the last call if they are enough."""
        ahead = getattr(self.model.session, "ahead", 0)  # of caches that grow
        need = longest + (min(ahead, limit) or limit)
        cache = self._spare.pop() if self._spare else None
        if cache is not None and cache.batch >= batch and cache.capacity >= need:
            return cache
        if cache is not None:
            cache.close()
        room = need if ahead else -(-need // ROUND) * ROUND
        return self.model.new_cache(batch, min(room, self.room))

    def _pieces(
        self, rows: list[Generation], limit: int, how: Sampling, ends: set[int]
    ) -> Iterator[str | int]:
        """What each token completes, as it comes."""
        cache = self._cache(len(rows), max(len(row.ids) for row in rows), limit)
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


def cache_for(model: Any, batch: int, capacity: int) -> Any:
    """What holds keys and values of ``batch`` rows for this engine."""
    if hasattr(model.session, "new_cache"):
        return model.session.new_cache(batch, capacity)
    if not model.cache:
        from lepton_compile.runtime.loader_no_cache import NoCache

        return NoCache(model, batch, capacity)
    if model.cache["shared"]:
        from lepton_compile.runtime.loader_shared_cache import SharedCache

        return SharedCache(model, batch, capacity)
    if not model.cache["shared"]:
        from lepton_compile.runtime.loader_past_cache import PastCache

        return PastCache(model, batch, capacity)
    raise LoaderError("this loader.py came without what it needs; take the artifact's own")
