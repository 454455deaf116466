"""Tokenizers that transformers has in slow form alone, written as a tokenizer.json.

Which one a folder holds is told as transformers tells it: by the class that its files name, or by
the type of the model. One kind, one file.

Ids are those of the slow tokenizer, except where a piece has no number (text is cut into others;
the slow one has the unknown word there), where ``>>fra<<`` stands within a text (it is found there,
too) or names no known language (it is cut like any text), for an accent that no language puts on
its letter (Unicode orders it among others), and where several cuts are equally likely.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.source.made_tokenizer.base import Slow
from lepton_compile.export.source.made_tokenizer.byt5 import ByT5
from lepton_compile.export.source.made_tokenizer.m2m_100 import M2M100
from lepton_compile.export.source.made_tokenizer.marian import Marian
from lepton_compile.export.source.made_tokenizer.plbart import PLBart
from lepton_compile.export.source.objects import read_object

__all__ = ["made_tokenizer", "write_made_tokenizer"]

KINDS: dict[str, type[Slow]] = {
    "ByT5Tokenizer": ByT5,
    "M2M100Tokenizer": M2M100,
    "MarianTokenizer": Marian,
    "PLBartTokenizer": PLBart,
}
# Of models whose files name no class.
CLASSES = {
    "m2m_100": "M2M100Tokenizer",
    "marian": "MarianTokenizer",
    "plbart": "PLBartTokenizer",
}


def made_tokenizer(folder: Path) -> Slow | None:
    """The tokenizer of a folder that has no fast form; None where it has one, or no tokenizer.

    Raises:
        SourceError: a file is missing, damaged, or says what cannot be written so.
    """
    if (folder / "tokenizer.json").is_file():
        return None
    told, config = (
        read_object(folder / "tokenizer_config.json"),
        read_object(folder / "config.json"),
    )
    named = told.get("tokenizer_class") or config.get("tokenizer_class")
    kind = KINDS.get(str(named or CLASSES.get(str(config.get("model_type")))))
    if kind is None:
        return None
    missing = [name for name in kind.files if not (folder / name).is_file()]
    if len(missing) == len(kind.files) and not told.get("tokenizer_class"):
        return None  # a configuration alone, which a plan takes
    if missing:
        raise _incomplete(folder, kind, missing)
    return kind(folder, {**read_object(folder / "special_tokens_map.json"), **told})


def _incomplete(folder: Path, kind: type[Slow], missing: list[str]) -> SourceError:
    return SourceError(
        "A file of the tokenizer is missing.",
        where=str(folder / missing[0]),
        found=", ".join(name for name in kind.files if name not in missing) or "none of them",
        available=kind.files,
        hint="Download it too: the tokenizer is made of all of them.",
    )


def write_made_tokenizer(tokenizer: Slow, folder: Path) -> None:
    """Write it into ``folder``, as ``save_pretrained`` writes a fast one."""
    _write(folder / "tokenizer.json", tokenizer.whole())
    _write(folder / "tokenizer_config.json", tokenizer.settings())


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), "utf-8", "backslashreplace")
