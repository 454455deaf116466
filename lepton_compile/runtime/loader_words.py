"""Ids into text as they come."""

from __future__ import annotations

from typing import Any

__all__ = ["Words"]

BROKEN = "\ufffd"  # What a tokenizer decodes the first bytes of an unfinished character to.


class Words:
    """``text`` of tokens as they come: whole characters only, and nothing of a stop text."""

    def __init__(self, source: Any, ids: list[int], stop: list[str]) -> None:
        self.text, self.stopped, self._held = "", False, ""
        self._decode, self._stop = source.tokenizer.decode, stop
        # The end of the prompt decides about a leading space, if its characters are whole.
        ends = (ids[-count:] for count in range(4, 17))
        self._window = next((end for end in ends if BROKEN not in self._decode(end)), [])
        self._read = len(self._window)  # tokens that are shown

    def push(self, tokens: list[int], final: bool) -> str:
        """The piece of text that is certain once ``tokens`` are known; all of it if ``final``."""
        self._window += tokens
        before, size = self._decode(self._window[: self._read]), len(self._window)
        # Bytes that are no character spoil whole ones before them: at the end they are left out.
        sizes = range(size, self._read, -1) if final else [size]
        texts = (self._decode(self._window[:size]) for size in sizes)
        now = next((text for text in texts if not text.endswith(BROKEN)), before)
        if len(now) > len(before):
            self._window, self._read = self._window[self._read :], len(self._window) - self._read
        return self._release(self._held + now[len(before) :], final)

    def _release(self, text: str, final: bool) -> str:
        """Hold back an end that may become a stop text; drop all that follows a whole one."""
        hits = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        held = [n for stop in self._stop for n in range(len(stop)) if text.endswith(stop[:n])]
        certain = len(text) - (0 if final else max(held, default=0))
        cut, self.stopped = min(hits, default=certain), bool(hits)
        self.text, self._held = self.text + text[:cut], text[cut:]
        return text[:cut]
