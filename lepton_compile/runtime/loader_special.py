"""The special tokens that a tokenizer's configuration names."""

from __future__ import annotations

import json
from functools import cached_property

from lepton_compile.runtime.loader_guard import check_digests
from lepton_compile.runtime.loader_opened import Opened

__all__ = ["Special"]


class Special(Opened):
    """A model that asks for special tokens by name."""

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """bos_token, mask_token and their like, as texts."""
        if not (name := self.manifest["tokenizer"].get("config")):
            return {}
        check_digests(self.path, self.manifest, [name])
        config = json.loads((self.path / name).read_text(encoding="utf-8"))
        tokens = {key: value for key, value in config.items() if key.endswith("_token")}
        texts = {k: v["content"] if isinstance(v, dict) else v for k, v in tokens.items()}
        return {name: text for name, text in texts.items() if isinstance(text, str)}
