"""The tokenizer of an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import Any

from lepton_compile.runtime.loader_guard import LoaderError, refuse

__all__ = ["Text"]


class Text:
    """The tokenizer of ``model``, and what it is used for."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.files: dict[str, str | None] = model.manifest["tokenizer"] or {}

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; for encoders it cuts texts where the model does, or can take no more."""
        name = self.files.get("file")
        refuse(not name, "this artifact has no tokenizer: give token ids instead of text")
        tokenizers = self.need("tokenizers", "text")
        tokenizer = tokenizers.Tokenizer.from_file(str(self.model.path / str(name)))
        self.pad = (tokenizer.padding or {}).get("pad_id", 0)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if not self.model.cache:
            most = self.model.manifest["ranges"]["sequence"][1]
            own = (self.model.manifest["embedding"] or {}).get("max_tokens")
            tokenizer.enable_truncation(min(most, own or most))
        return tokenizer

    def need(self, module: str, why: str) -> Any:
        """The module, or how to get it."""
        try:
            return import_module(module)
        except ImportError:
            package = module.partition(".")[0]
            raise LoaderError(f"{why} needs {package}: pip install {package}") from None

    def special(self) -> dict[str, Any]:
        """bos_token, mask_token and their like, as texts."""
        from lepton_compile.runtime.loader_special import special_tokens

        return special_tokens(self.model.path, self.files.get("config"))

    def words(self, ids: list[int], stop: Sequence[str], live: Any = True) -> Any:
        """What turns the tokens that follow ``ids`` into text."""
        from lepton_compile.runtime.loader_words import Words

        return Words(self, ids, [text for text in stop if text], bool(live))

    def encode(self, prompt: Any, chat: Any = False) -> list[int]:
        """Ids of a text, or of chat messages (dicts with role and content) in their template."""
        from lepton_compile.runtime.loader_chat import chat_of

        messages = chat_of(prompt, chat)
        if messages is None:
            return list(self.tokenizer.encode(prompt).ids)
        return list(self.tokenizer.encode(self.chat(messages), add_special_tokens=False).ids)

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The chat template over ``messages``, ready for the answer."""
        from lepton_compile.runtime.loader_chat import chat_text

        return chat_text(self, messages)
