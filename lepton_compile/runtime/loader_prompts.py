"""Prompts as token ids: texts, chat messages, or ids as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import LoaderError, failing, refuse
from lepton_compile.runtime.loader_text import Texts

__all__ = ["Prompts"]


class Prompts(Texts):
    """A model that takes prompts."""

    def encode(self, prompt: Any, chat: Any = False) -> list[int]:
        """Ids of a text, of chat messages (dicts with role and content), or ids as they are.

        With ``chat``, True, the messages that came before it or what the template asks for by name
        (tools, enable_thinking), a text is a message of the user.
        """
        if self.task == "image-text-to-text":
            from lepton_compile.runtime.loader_pictured import WithTiles

            prompt, tiles = prompt if isinstance(prompt, WithTiles) else WithTiles(prompt, [])
        told = isinstance(chat, list | tuple)
        named = isinstance(chat, dict) and all(isinstance(n, str) and n != "messages" for n in chat)
        wrong = f"chat is True, messages or values by name: {chat!r:.60}"
        refuse(not (told or named or isinstance(chat, bool | None)), wrong)
        given, talk = chat if named else {}, told or named or chat
        text, many = isinstance(prompt, str), isinstance(prompt, list | tuple)
        messages = many and len(prompt) > 0 and isinstance(prompt[0], dict)
        if not (talk or text or messages):
            with failing("a prompt is a text, token ids or a list of messages"):
                ids = np.asarray(prompt)
                if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
                    raise TypeError(f"{prompt!r:.60}")  # an array has no words where all is well
            return [*map(int, ids)]
        if talk := talk or not text:
            said = [{"role": "user", "content": prompt}] if text else prompt
            refuse(not isinstance(said, list | tuple), f"these are no messages: {prompt!r:.60}")
            prompt = self.chat_text([*(chat if told else ()), *(said if prompt else ())], **given)
        if self.task == "image-text-to-text":
            from lepton_compile.runtime.loader_pictured import begun, expanded

            talk = talk and begun(self, prompt)
            prompt = expanded(self, prompt, tiles)
        with failing("this prompt cannot be encoded"):
            prompt.encode()  # half a character is none, such as a byte that a shell passes on
            return list(self.tokenizer.encode(prompt, add_special_tokens=not talk).ids)

    def chat_text(self, messages: Sequence[Mapping[str, Any]], /, **named: Any) -> str:
        """The chat template over ``messages``, with what else it asks for ``named``."""
        if (self.manifest["tokenizer"] or {}).get("chat_template"):
            from lepton_compile.runtime.loader_template import rendered

            return rendered(self, {"messages": messages, **named})
        raise LoaderError("this artifact has no chat template: give the prompt as plain text")
