"""Token after token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import LoaderError, failing, refuse
from lepton_compile.runtime.loader_text import Texts
from lepton_compile.runtime.loader_words import Words

__all__ = ["Continues", "Generation"]

ROUND = 256  # Buffers have room for a multiple of this many tokens.


class Continues(Texts):
    """A model that writes."""

    def new_cache(self, batch: int, capacity: int) -> Any:
        """What holds the keys and values of ``batch`` rows while they are continued."""
        refuse(self.session is None, "this model is closed")
        if self.cache and self.target.startswith("trt"):
            from lepton_compile.runtime.loader_trt_decoder import Decoder

            return Decoder.new_cache(self.session, batch, capacity)
        if not self.cache:
            from lepton_compile.runtime.loader_no_cache import NoCache

            return NoCache(self, batch, capacity)
        if self.cache.get("states") and getattr(self.session, "captures", False):
            from lepton_compile.runtime.loader_graph_states import GraphStates

            return GraphStates(self, batch, capacity)
        if self.cache.get("shared") and getattr(self.session, "captures", False):
            from lepton_compile.runtime.loader_cuda_graph import GraphCache

            return GraphCache(self, batch, capacity)
        if self.cache.get("shared") and self.cache.get("states"):
            from lepton_compile.runtime.loader_shared_states import SharedStates

            return SharedStates(self, batch, capacity)
        if self.cache.get("shared"):
            from lepton_compile.runtime.loader_shared_cache import SharedCache

            return SharedCache(self, batch, capacity)
        if not self.cache.get("shared", True):
            from lepton_compile.runtime.loader_past_cache import PastCache

            return PastCache(self, batch, capacity)
        raise LoaderError("take the artifact's own loader.py, not this")

    def forget(self) -> None:
        """Let buffers go, and with them what they hold of prompts."""
        with suppress(IndexError):  # none is left, whoever took the last
            while True:
                self.spare.pop().close()

    def _room(self) -> int:
        """How many tokens a row has room for, prompt and answer together."""
        known = (self.cache or {}).get("max_length") or self.manifest["ranges"]["sequence"][1]
        return int(min(known, getattr(self.session, "capacity", known)))

    def _limit(self, prompts: list[list[int]], wanted: int | None) -> int:
        """How many new tokens there will be at most, once the prompts are found to fit."""
        refuse(not all(prompts), "the prompt is empty")
        width, room = max(map(len, prompts)), self._room()
        limit = max(min(128, room - width), 1) if wanted is None else wanted
        refuse(width + limit > room, f"{width} tokens and {limit} new, but the cache holds {room}")
        self.fit("input_ids", [ids + [ids[0]] * (width - len(ids)) for ids in prompts])
        return limit

    def _buffers(self, batch: int, longest: int, limit: int) -> Any:
        """A cache with room for prompts and answers: that of the last call if it is enough."""
        need, cache = longest + limit, None
        room = -(-need // ROUND) * ROUND
        if ahead := getattr(self.session, "ahead", 0):
            from lepton_compile.runtime.loader_trt_buckets import at_first

            need = room = at_first(longest, limit, ahead)
        with suppress(IndexError):  # this is the first call, or others have them
            cache = self.spare.pop()
        with failing(f"no room for {batch} rows of {longest} tokens and {limit} new"):
            if cache is not None and cache.batch >= batch:
                if cache.capacity < need and getattr(cache, "pieces", False):
                    cache.widen(min(max(room, 2 * cache.capacity), self._room()))
                if cache.capacity >= need:
                    return cache
            if cache is not None:
                cache.close()
            if (self.cache or {}).get("reread") and self.target.startswith("ort-"):
                from lepton_compile.runtime.loader_reread import Rereads

                return Rereads(self, batch, min(room, self._room()))
            return self.new_cache(batch, min(room, self._room()))

    def _pieces(self, rows: list[Any], how: Any) -> Iterator[str | int]:
        """What each token completes, as it comes."""
        cache = self._buffers(len(rows), max(len(row.ids) for row in rows), rows[0].limit)
        try:
            if self.task not in ("text-generation", "image-text-to-text"):
                from lepton_compile.runtime.loader_source import ready

                ready(self, cache, rows)
            if told := self.manifest.get("generation"):
                from lepton_compile.runtime.loader_ruled import Ruled

                how = Ruled(how, told, how.seed)
            yield from _continued(cache, rows, how)
        except GeneratorExit:
            pass  # a stream that nobody reads on is no failure
        except BaseException:
            cache.close()
            raise
        if self.spare or self.session is None:  # others have left some, or the model is closed
            cache.close()
        else:
            self.spare.append(cache)


def _continued(cache: Any, rows: list[Any], how: Any) -> Iterator[str | int]:
    """Token after token until all rows have ended."""
    begin = time.perf_counter()
    with failing("the engine failed on the prompts"):
        logits = cache.start([row.ids for row in rows])
    middle = time.perf_counter()
    draws = np.random.default_rng(how.seed).spawn(len(rows))
    for steps in count(1):
        for row, scores, draw in zip(rows, logits, draws, strict=True):
            if not row.finish:
                token = how.pick(scores, row, draw)
                if (piece := row.push(token)) is not None:
                    yield piece
        alive = [not row.finish for row in rows]
        if not any(alive):
            break
        last = [row.tokens[-1] if row.tokens else 0 for row in rows]
        with failing(f"the engine failed after {steps} new tokens of {len(rows)} rows"):
            logits = cache.step(last, alive)
    seconds = time.perf_counter() - middle
    rate = sum(max(len(row.tokens) - 1, 0) for row in rows) / seconds
    for row in rows:
        row.timings = {"prefill_s": middle - begin, "decode_s": seconds, "tokens_per_s": rate}


class Generation:
    """What one prompt led to.

    ``tokens`` are the new ids without an ending token, ``finish`` is "eos" (such a token), "stop"
    (a text) or "length", ``timings`` are the seconds and tokens per second of the whole batch.
    """

    def __init__(
        self, model: Any, ids: list[int], limit: int, ends: set[int], stops: list[str], live: bool
    ) -> None:
        self.ids, self.limit, self.ends, self._model = ids, limit, ends, model
        self.tokens, self.finish, self.timings = list[int](), "", dict[str, float]()
        live = live and bool(model.manifest["tokenizer"])
        self._words = Words(model, ids, stops) if stops or live else None

    @property
    def text(self) -> str | None:
        """The new text, None where the artifact has no tokenizer."""
        if not self._words and self._model.manifest["tokenizer"]:  # not before: ids need none
            self._words = Words(self._model, self.ids, [])
            self._words.push(self.tokens, final=True)
        return self._words.text if self._words else None

    def push(self, token: int) -> str | int | None:
        """Take a token in; the text that is certain by now, or the token without a tokenizer."""
        new = [] if token in self.ends else [token]
        self.tokens += new
        self.finish = "length" if len(self.tokens) == self.limit else "" if new else "eos"
        if not self._words:
            return token if new else None
        piece = self._words.push(new, final=bool(self.finish))
        self.finish = "stop" if self._words.stopped else self.finish
        return piece or None
