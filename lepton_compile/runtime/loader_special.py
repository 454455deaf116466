"""The special tokens that a tokenizer's configuration names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["special_tokens"]


def special_tokens(folder: Path, name: str | None) -> dict[str, Any]:
    """bos_token, mask_token and their like, as texts, from the file ``name``."""
    config = json.loads((folder / name).read_text(encoding="utf-8")) if name else {}
    tokens = {key: value for key, value in config.items() if key.endswith("_token")}
    texts = {k: v["content"] if isinstance(v, dict) else v for k, v in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}
