"""Text in and out: prompts and chats into ids, ids into text as they come.

Needs `tokenizers`, and `jinja2` for chat templates.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

from lepton_compile.runtime.loader_guard import LoaderError

__all__ = ["Text", "Words"]

BROKEN = "\ufffd"  # What a tokenizer decodes the first bytes of an unfinished character to.


class Words:
    """Text of tokens as they come: whole characters only, and nothing of a stop text.

    Without ``live`` tokens are kept until ``text`` is asked for, so that a caller who deals in ids
    never waits for a tokenizer.
    """

    def __init__(self, source: Text, ids: list[int], stop: list[str], live: bool) -> None:
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


class Text:
    """The tokenizer of ``model``, and its chat template."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.files: dict[str, str | None] = model.manifest["tokenizer"] or {}

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; for encoders it cuts texts at the longest sequence they take."""
        name = self.files.get("file")
        if not name:
            raise LoaderError("this artifact has no tokenizer: give token ids instead of text")
        tokenizer = self._need("tokenizers", "text").Tokenizer.from_file(
            str(self.model.path / name)
        )
        self.pad = (tokenizer.padding or {}).get("pad_id", 0)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if not self.model.cache:
            tokenizer.enable_truncation(self.model.manifest["ranges"]["sequence"][1])
        return tokenizer

    def words(self, ids: list[int], stop: str | Sequence[str] | None, live: Any = True) -> Words:
        """What turns the tokens that follow ``ids`` into text."""
        stops = [stop] if isinstance(stop, str) else [text for text in stop or () if text]
        return Words(self, ids, stops, bool(live))

    def encode(self, prompt: Any, chat: Any = False) -> list[int]:
        """Ids of a text, or of chat messages (dicts with role and content) in their template."""
        messages = [] if isinstance(prompt, str) else list(prompt)
        if isinstance(prompt, str) and not chat:
            return list(self.tokenizer.encode(prompt).ids)
        if isinstance(prompt, str) and prompt:
            messages = [{"role": "user", "content": prompt}]
        before = [] if chat in (None, True, False) else list(chat)
        text = self.chat([*before, *messages])
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The chat template over ``messages``, rendered in a sandbox, ready for the answer."""
        name = self.files.get("chat_template")
        if not name:
            raise LoaderError("this artifact has no chat template: give the prompt as plain text")
        sandbox = self._need("jinja2.sandbox", "a chat template")

        def refuse(why: str) -> None:
            raise LoaderError(f"the chat template refuses these messages: {why}")

        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        template = environment.from_string((self.model.path / name).read_text(encoding="utf-8"))
        given = {"messages": messages, "add_generation_prompt": True, "raise_exception": refuse}
        try:
            return str(template.render(**self.special(), **given))
        except import_module("jinja2").TemplateError as error:
            raise LoaderError(f"the chat template fails on these messages: {error}") from error

    def special(self) -> dict[str, Any]:
        """bos_token, eos_token and their like, which templates refer to."""
        name = self.files.get("config")
        config = json.loads((self.model.path / name).read_text(encoding="utf-8")) if name else {}
        tokens = {key: value for key, value in config.items() if key.endswith("_token") and value}
        return {k: v["content"] if isinstance(v, dict) else v for k, v in tokens.items()}

    def _need(self, module: str, why: str) -> Any:
        try:
            return import_module(module)
        except ImportError:
            package = module.partition(".")[0]
            raise LoaderError(f"{why} needs {package}: pip install {package}") from None
