"""A prompt as chat messages, and messages as the text that the model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lepton_compile.runtime.loader_guard import LoaderError

__all__ = ["chat_of", "chat_text"]


def chat_of(prompt: Any, chat: Any) -> list[Any] | None:
    """The messages that ``prompt`` is or ends, None for a plain text."""
    if isinstance(prompt, str) and not chat:
        return None
    before = [] if chat in (None, True, False) else list(chat)
    if isinstance(prompt, str):
        return [*before, {"role": "user", "content": prompt}] if prompt else before
    return [*before, *prompt]


def chat_text(text: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """The chat template of the artifact over ``messages``."""
    if name := text.files.get("chat_template"):
        from lepton_compile.runtime.loader_template import rendered

        source = (text.model.path / name).read_text(encoding="utf-8")
        return rendered(source, messages, text.special(), text.need)
    raise LoaderError("this artifact has no chat template: give the prompt as plain text")
