"""Texts as token ids."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from lepton_compile.runtime.loader_guard import check_digests, failing, refuse
from lepton_compile.runtime.loader_opened import Opened

__all__ = ["Texts"]


class Texts(Opened):
    """A model whose inputs are token ids."""

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer; for encoders it cuts texts where the model does, or can take no more."""
        name: Any = (self.manifest["tokenizer"] or {}).get("file")
        refuse(not name, "this artifact has no tokenizer: give token ids instead of text")
        with failing("text needs tokenizers: pip install tokenizers"):
            from tokenizers import Tokenizer
        check_digests(self.path, self.manifest, [name])
        with failing(f"{name} is no tokenizer"):
            made = Tokenizer.from_file(str(self.path / name))
        if self.task in ("text-generation", "text2text-generation", "image-text-to-text"):
            made.no_truncation()
        if self.task not in ("text-generation", "text2text-generation", "image-text-to-text"):
            self.pad = (made.padding or {}).get("pad_id", 0)
            most, own = self.manifest["ranges"]["sequence"][1], self.manifest["embedding"] or {}
            made.enable_truncation(min(most, own.get("max_tokens") or most))
        made.no_padding()
        return made
