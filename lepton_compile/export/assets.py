"""Small files of the model that the artifact carries: configuration, tokenizer, chat template.

Everything is copied or written with sorted keys, so that two builds give the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.dense import read_dense
from lepton_compile.export.source import Source
from lepton_compile.export.source.modules import MODULES, modules_of

__all__ = ["generation", "is_sentence_model", "pooling", "text_limit", "write_assets"]

TOKENIZER, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
# Keys that name the place or the code of the original.
DROPPED = ("auto_map", "name_or_path", "_commit_hash", "tokenizer_file", "special_tokens_map_file")
POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
}
KINDS = tuple(POOLINGS.values())
NO_LIMIT = 1_000_000_000
_ORDER = re.compile(r"Transformer Pooling( Dense)*( Normalize)?")


def write_assets(source: Source, folder: Path) -> dict[str, str | None] | None:
    """Write configuration, generation defaults and tokenizer into ``folder``.

    Returns:
        The manifest's ``tokenizer``: file names, or None for a model without a tokenizer.

    Raises:
        SourceError: the tokenizer has no fast form, or one of its files cannot be read.
    """
    _write_config(source, folder)
    origin = source.tokenizer_folder()
    if origin is None:
        return None
    if (origin / TOKENIZER).is_file():
        return _write_tokenizer(origin, folder)
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
        return _write_tokenizer(Path(converted), folder)


def _write_config(source: Source, folder: Path) -> None:
    if source.kind == "folder":
        shutil.copyfile(source.path / "config.json", folder / "config.json")
        if (source.path / "generation_config.json").is_file():
            shutil.copyfile(
                source.path / "generation_config.json", folder / "generation_config.json"
            )
        return
    _write_json(folder / "config.json", json.loads(source.config().to_json_string()))


def _write_tokenizer(origin: Path, folder: Path) -> dict[str, str | None]:
    shutil.copyfile(origin / TOKENIZER, folder / TOKENIZER)
    config = {**_read_json(origin / "special_tokens_map.json"), **_read_json(origin / CONFIG)}
    template = _template(origin, config)
    for name, value in config.items():
        if name.endswith("_token") and isinstance(value, dict):
            config[name] = value.get("content")  # an added token, written out
    kept = {name: value for name, value in config.items() if name not in DROPPED}
    _write_json(folder / CONFIG, kept)
    if template is not None:
        (folder / TEMPLATE).write_text(template, "utf-8")
    return {"file": TOKENIZER, "config": CONFIG, "chat_template": TEMPLATE if template else None}


def _template(origin: Path, config: dict[str, Any]) -> str | None:
    """The chat template, from its file or the tokenizer's configuration."""
    found = config.pop("chat_template", None)
    if (origin / TEMPLATE).is_file():
        found = (origin / TEMPLATE).read_text("utf-8")
    if isinstance(found, list):  # several by name; chatting uses the default
        found = next((e.get("template") for e in found if e.get("name") == "default"), None)
    return found or None


def generation(source: Source) -> dict[str, Any]:
    """``eos`` (list), ``bos`` and ``pad`` (ids or None) and ``vocabulary`` (count) of a decoder.

    generation_config.json goes before config.json: it is what the model was released to use.
    """
    config = source.config().get_text_config()
    file = source.path / "generation_config.json"
    given = _read_json(file) if source.kind == "folder" else {}

    def get(name: str) -> Any:
        return given[name] if given.get(name) is not None else getattr(config, name, None)

    eos = get("eos_token_id")
    return {
        "eos": [] if eos is None else list(eos) if isinstance(eos, list | tuple) else [eos],
        "bos": get("bos_token_id"),
        "pad": get("pad_token_id"),
        "vocabulary": int(config.vocab_size),
    }


def is_sentence_model(source: Source) -> bool:
    """Whether it is a folder of sentence-transformers, whatever its modules are."""
    return source.kind == "folder" and (source.path / MODULES).is_file()


def pooling(source: Source) -> dict[str, Any] | None:
    """How a sentence-transformers folder makes its embedding; None for any other model.

    Returns:
        ``pooling`` (mean, cls, max or lasttoken), ``dense`` (tuple of ``Dense``) and ``normalize``
        (bool).

    Raises:
        SourceError: modules or a pooling that cannot be put into the graph.
    """
    if not is_sentence_model(source):
        return None
    modules = modules_of(source.path)
    kinds, folders = [kind for kind, _ in modules], [folder for _, folder in modules]
    if not _ORDER.fullmatch(" ".join(kinds)):
        raise SourceError(
            "The sentence embedding has modules that cannot be compiled.",
            where=str(source.path / MODULES),
            found=", ".join(kinds),
            available=["Transformer, Pooling, any number of Dense, Normalize"],
            hint="Set pooling: none to compile the encoder alone.",
        )
    dense = [at for kind, at in zip(kinds, folders, strict=True) if kind == "Dense"]
    return {
        "pooling": _pooling_kind(folders[1] / "config.json"),
        "dense": tuple(read_dense(at) for at in dense),
        "normalize": kinds[-1] == "Normalize",
    }


def text_limit(source: Source) -> int | None:
    """Tokens at which sentence-transformers cuts texts: its own setting, else the tokenizer's.

    Returns:
        None for any other model, and where nothing but what the model can take limits a text.
    """
    if not is_sentence_model(source):
        return None
    places = (at for kind, at in modules_of(source.path) if kind == "Transformer")
    folder = next(places, source.path)
    own = next(iter(sorted(folder.glob("sentence_*_config.json"))), folder / "none")
    found = _read_json(own).get("max_seq_length")
    if found is None:
        found = _read_json(folder / CONFIG).get("model_max_length")
    # A tokenizer without a limit says so by a number that no text has.
    return int(found) if found is not None and found < NO_LIMIT else None


def _pooling_kind(file: Path) -> str:
    settings = _read_json(file)
    # Newer files name the mode, or several; older ones have a switch for each.
    found = settings.get("pooling_mode")
    if found is None:
        found = [POOLINGS.get(key, key) for key, on in settings.items() if on is True]
        found = [kind for kind in found if kind in KINDS or kind.startswith("pooling_mode_")]
    names = [found] if isinstance(found, str) else [str(name) for name in found]
    if len(names) == 1 and names[0] in KINDS:
        return names[0]
    raise SourceError(
        "This pooling cannot be compiled.",
        where=str(file),
        found=", ".join(names) or "none",
        available=KINDS,
        hint="Set pooling: to one of these, or to none.",
    )


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError("A file cannot be read.", where=str(file), found=str(error)) from error
    if not isinstance(found, dict):
        raise SourceError("A file does not hold an object.", where=str(file))
    return found


def _write_json(file: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", "utf-8")
