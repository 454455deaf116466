"""Ids into text as they come: whole characters, and nothing of a text that ends it."""

from __future__ import annotations

from typing import Any

__all__ = ["Words"]

BROKEN = "\ufffd"  # What a tokenizer decodes the first bytes of an unfinished character to.


class Words:
    """Text of tokens as they come: whole characters only, and nothing of a stop text.

    Without ``live`` tokens are kept until ``text`` is asked for, so that a caller who deals in ids
    never waits for a tokenizer.
    """

    def __init__(self, source: Any, ids: list[int], stop: list[str], live: bool) -> None:
        self.stopped, self._text, self._held = False, "", ""
        self._source, self._stop, self._live = source, stop, live
        self._later, self._window, self._read = list[int](), ids[-4:], -1

    @property
    def text(self) -> str:
        """All the text that is certain by now."""
        if not self._live:
            self._live = True
            self.push(self._later, final=True)
        return self._text

    def push(self, tokens: list[int], final: bool) -> str:
        """The piece of text that is certain once ``tokens`` are known; all of it if ``final``."""
        if not self._live:
            self._later += tokens
            return ""
        if self._read < 0:
            # The end of the prompt decides about a leading space; _read counts the tokens shown.
            self._window = [] if self._decode(self._window).endswith(BROKEN) else self._window
            self._read = len(self._window)
        self._window = self._window + tokens
        before, now = self._decode(self._window[: self._read]), self._decode(self._window)
        if now.endswith(BROKEN):
            now = now.rstrip(BROKEN) if final else before
        if len(now) > len(before):
            self._window, self._read = self._window[self._read :], len(self._window) - self._read
        return self._release(self._held + now[len(before) :], final)

    def _decode(self, tokens: list[int]) -> str:
        return str(self._source.tokenizer.decode(tokens))

    def _release(self, text: str, final: bool) -> str:
        """Hold back an end that may become a stop text; drop all that follows a whole one."""
        hits = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        held = [n for stop in self._stop for n in range(len(stop)) if text.endswith(stop[:n])]
        cut = len(text) - (0 if final else max(held, default=0))
        if hits:
            cut, self.stopped = min(hits), True
        self._text, self._held = self._text + text[:cut], text[cut:]
        return text[:cut]
