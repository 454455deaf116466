"""Prompts as token ids: texts, chat messages, or ids as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import LoaderError, refuse
from lepton_compile.runtime.loader_text import Texts

__all__ = ["Prompts"]


class Prompts(Texts):
    """A model that takes prompts."""

    def encode(self, prompt: Any, chat: Any = False) -> list[int]:
        """Ids of a text, of chat messages (dicts with role and content), or ids as they are.

        With ``chat``, True or the messages that came before it, a text is a message of the user.
        """
        text, many = isinstance(prompt, str), isinstance(prompt, list | tuple)
        messages = many and len(prompt) > 0 and isinstance(prompt[0], dict)
        if not (chat or text or messages):
            ids = np.asarray(prompt)
            bad = ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu")
            refuse(bad, f"a prompt is a text, token ids or a list of messages: {prompt!r:.60}")
            return [*map(int, ids)]
        if text and not chat:
            return list(self.tokenizer.encode(prompt).ids)
        said = [{"role": "user", "content": prompt}] if text and prompt else prompt
        before = () if chat in (None, True, False) else chat
        refuse(not isinstance(before, list | tuple), f"chat is True or messages: {chat!r:.60}")
        whole = self.chat_text([*before, *said])
        return list(self.tokenizer.encode(whole, add_special_tokens=False).ids)

    def chat_text(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The artifact's chat template over ``messages``, ready for the answer."""
        if name := (self.manifest["tokenizer"] or {}).get("chat_template"):
            from lepton_compile.runtime.loader_template import rendered

            return rendered(self, (self.path / name).read_text(encoding="utf-8"), messages)
        raise LoaderError("this artifact has no chat template: give the prompt as plain text")
