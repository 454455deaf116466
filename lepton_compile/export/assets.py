"""Small files of the model that the artifact carries: configuration, tokenizer, chat template.

Everything is copied or written with sorted keys, so that two builds give the same bytes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError, told_as
from lepton_compile.export.patch_grid import patch_grid
from lepton_compile.export.sentence import lowers_case
from lepton_compile.export.source import Source
from lepton_compile.export.source.chat_template import CONFIG, TEMPLATE, chat_template
from lepton_compile.export.source.objects import read_object
from lepton_compile.export.source.preprocessor import FILE as PREPROCESSOR
from lepton_compile.export.source.preprocessor import settings_of
from lepton_compile.export.source.tokenizer_files import tokenizer_error
from lepton_compile.export.text_tower import reads_padding, tower_of
from lepton_compile.export.vision_part import preprocessing

__all__ = ["write_assets", "write_preprocessing"]

TOKENIZER = "tokenizer.json"
# Keys that name the place or the code of the original.
DROPPED = ("auto_map", "name_or_path", "_commit_hash", "tokenizer_file", "special_tokens_map_file")


def write_assets(
    source: Source, folder: Path, *, processor: bool = False
) -> dict[str, str | None] | None:
    """Write configuration, generation defaults and tokenizer into ``folder``.

    Args:
        processor: whether the chat template is that of the model's processor, if it has one.

    Returns:
        The manifest's ``tokenizer``: file names, or None for a model without a tokenizer.

    Raises:
        SourceError: the tokenizer has no fast form, or one of its files cannot be read.
    """
    _write_config(source, folder)
    origin = source.tokenizer_folder()
    if origin is None:
        return None
    template = chat_template(origin, processor=processor)
    if (origin / TOKENIZER).is_file():
        return _write_tokenizer(source, origin, folder, template)
    with tempfile.TemporaryDirectory() as converted:
        tokenizer = source.tokenizer()
        if not getattr(tokenizer, "is_fast", False):
            raise SourceError(
                "The tokenizer has no fast form, which the loader needs.",
                where=str(origin),
                found=type(tokenizer).__name__,
            )
        assert tokenizer is not None
        tokenizer.save_pretrained(converted)
        return _write_tokenizer(source, Path(converted), folder, template)


def _write_config(source: Source, folder: Path) -> None:
    if source.kind == "folder":
        shutil.copyfile(source.path / "config.json", folder / "config.json")
        if (source.path / "generation_config.json").is_file():
            shutil.copyfile(
                source.path / "generation_config.json", folder / "generation_config.json"
            )
        return
    _write_json(folder / "config.json", json.loads(source.config().to_json_string()))


def _write_tokenizer(
    source: Source, origin: Path, folder: Path, template: str | None
) -> dict[str, str | None]:
    shutil.copyfile(origin / TOKENIZER, folder / TOKENIZER)
    tower = tower_of(source.config())
    if lowers_case(source) or (tower is not None and tower.lowers):
        _lower_case(folder / TOKENIZER, origin)
    config = {**read_object(origin / "special_tokens_map.json"), **read_object(origin / CONFIG)}
    config.pop("chat_template", None)
    for name, value in config.items():
        if name.endswith("_token") and isinstance(value, dict):
            config[name] = value.get("content")  # an added token, written out
    if reads_padding(source.config()):
        _pad_by(config.get("pad_token"), source, folder / TOKENIZER, origin)
    kept = {name: value for name, value in config.items() if name not in DROPPED}
    _write_json(folder / CONFIG, kept)
    if template is not None:
        (folder / TEMPLATE).write_text(template, "utf-8")
    return {"file": TOKENIZER, "config": CONFIG, "chat_template": TEMPLATE if template else None}


def _lower_case(file: Path, origin: Path) -> None:
    """Texts in lower case before anything else is done to them, if the tokenizer does not do so."""
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Lowercase, Sequence

    with told_as(partial(tokenizer_error, origin)):
        tokenizer = Tokenizer.from_file(str(file))
    own = tokenizer.normalizer
    if own is None or own.normalize_str("A") != "a":
        tokenizer.normalizer = Sequence([Lowercase(), *([] if own is None else [own])])
        tokenizer.save(str(file), pretty=False)


def _pad_by(token: Any, source: Source, file: Path, origin: Path) -> None:
    """Say in tokenizer.json which token texts are padded with: loaders look there, and the model
    reads it."""
    from tokenizers import Tokenizer

    with told_as(partial(tokenizer_error, origin)):
        tokenizer = Tokenizer.from_file(str(file))
    number = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if number is None:
        number = source.config().get_text_config().pad_token_id or 0
    tokenizer.enable_padding(pad_id=number, pad_token=token or "")
    tokenizer.save(str(file), pretty=False)


def write_preprocessing(source: Source, folder: Path, most: int = 0) -> dict[str, Any] | None:
    """Write how pictures are made into ``folder``, as the model's own file says it.

    Args:
        most: pixels of a picture of any size, whatever the file says; 0 for no such limit.

    Returns:
        The manifest's ``image``; None where the model's files do not say.

    Raises:
        SourceError: a file is damaged, or asks for what is not done.
    """
    made = preprocessing(source)
    if made is None:
        return None
    _write_json(folder / PREPROCESSOR, settings_of(source.folder)[1])
    if made.pixels and most:
        grid = patch_grid(source.config())
        unit = grid.unit if grid is not None else 1
        made = replace(made, pixels=made.pixels.within(most, unit))
    return made.entry()


def _write_json(file: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", "utf-8", "backslashreplace")  # JSON has half characters so, too
