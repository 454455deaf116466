"""Prompts as token ids: texts, chat messages, or ids as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lepton_compile.runtime.loader_guard import LoaderError
from lepton_compile.runtime.loader_text import Texts

__all__ = ["Prompts"]


class Prompts(Texts):
    """A model that takes prompts."""

    def encode(self, prompt: Any, chat: Any = False) -> list[int]:
        """Ids of a text, of chat messages (dicts with role and content), or ids as they are.

        With ``chat``, True or the messages that came before it, a text is a message of the user.
        """
        text = isinstance(prompt, str)
        if not (chat or text or isinstance(next(iter(prompt), None), dict)):
            return [int(token) for token in prompt]
        if text and not chat:
            return list(self.tokenizer.encode(prompt).ids)
        said = [{"role": "user", "content": prompt}] if text and prompt else prompt
        messages = [*(() if chat in (None, True, False) else chat), *said]
        return list(self.tokenizer.encode(self.chat_text(messages), add_special_tokens=False).ids)

    def chat_text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The artifact's chat template over ``messages``, ready for the answer."""
        if name := (self.manifest["tokenizer"] or {}).get("chat_template"):
            from lepton_compile.runtime.loader_template import rendered

            return rendered(self, (self.path / name).read_text(encoding="utf-8"), messages)
        raise LoaderError("this artifact has no chat template: give the prompt as plain text")
