"""The special tokens that a tokenizer's configuration names."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["special_tokens"]


def special_tokens(model: Any) -> dict[str, str]:
    """bos_token, mask_token and their like, as texts."""
    name = model.manifest["tokenizer"].get("config")
    config = json.loads((model.path / name).read_text(encoding="utf-8")) if name else {}
    tokens = {key: value for key, value in config.items() if key.endswith("_token")}
    texts = {k: v["content"] if isinstance(v, dict) else v for k, v in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}
