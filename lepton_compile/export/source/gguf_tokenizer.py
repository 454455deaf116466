"""The tokenizer of a GGUF file, rebuilt from its vocabulary.

The merges of a sentencepiece vocabulary have to be recovered, which takes seconds and hundreds of
megabytes for a large one. The result, a folder as ``save_pretrained`` writes it, is kept in the
user's cache under the digest of the file's header.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lepton_compile.errors import SourceError
from lepton_compile.export.checkpoint.base import read_bytes
from lepton_compile.export.checkpoint.gguf_header import GGUFHeader
from lepton_plugins.toolchain.store import user_cache
from lepton_plugins.workroom import Workroom

__all__ = ["tokenizer_folder"]

FORM = 3  # of what is written: folders of another one, in a cache, are left alone
# How text is cut before it is merged, by the name that the file gives it. transformers knows some
# of the names, and cuts as GPT-2 does for any other.
SAME_CUTS = {"chatglm-bpe": "llama-bpe", "glm4": "llama-bpe", "stablelm2": "qwen2"}
DIGITS_APART = (  # and then as GPT-2
    "codeshell",
    "command-r",
    "exaone",
    "minerva-7b",
    "refact",
    "smollm",
    "starcoder",
)
# What llama.cpp takes from that name, too, where the file does not say: the token that texts begin
# with, and that a word of the vocabulary stays whole, whatever merges lead to it.
_BOTH = (
    "falcon-h1",
    "falcon3",
    "jina-v5-nano",
    "lfm2",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "midm-2.0",
    "pixtral",
    "tekken",
)
BEGUN = (*_BOTH, "chameleon")
WHOLE_WORDS = (*_BOTH, "granite-embed-multi-97m", "minicpm5", "youtu")


def tokenizer_folder(header: GGUFHeader) -> Path | None:
    """A folder with ``tokenizer.json``, ``tokenizer_config.json`` and the chat template, if any.

    None if the file has no vocabulary.

    Raises:
        SourceError: a kind of tokenizer that transformers cannot rebuild, or a cache that cannot
            be written to.
    """
    if not header.metadata.get("tokenizer.ggml.tokens"):
        return None
    key = _key(header)
    folder = user_cache() / "tokenizers" / key
    if (folder / "tokenizer.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        room = Workroom("tokenizer", folder.parent)
    except OSError as error:
        raise SourceError(
            "There is no place to keep the tokenizer of the GGUF file.",
            where=str(folder.parent),
            found=error.strerror or str(error),
            hint="Set XDG_CACHE_HOME to a folder that can be written to.",
        ) from error
    with room as partial:
        built = Path(partial) / "tokenizer"
        built.mkdir()
        _write(header.path, built, header.key("context_length"))
        try:
            os.rename(built, folder)
        except OSError:
            if not (folder / "tokenizer.json").is_file():  # no other build was faster
                raise
    return folder


def _key(header: GGUFHeader) -> str:
    """Name in the cache."""
    import tokenizers
    import transformers

    end = min((tensor.offset for tensor in header.tensors.values()), default=0)
    digest = hashlib.sha256(read_bytes(header.path, 0, end).data)
    digest.update(f"{transformers.__version__} {tokenizers.__version__} {FORM}".encode())
    return digest.hexdigest()[:32]


def _write(path: Path, folder: Path, length: int | None) -> None:
    try:
        from transformers.integrations.gguf import convert_gguf_tokenizer, get_gguf_tokenizer
    except ImportError:  # an older transformers, without these two
        return _write_slowly(path, folder)
    try:
        architecture, words, options = get_gguf_tokenizer(str(path))
        cuts = str(words.get("pre_tokenizer_type"))
        words["pre_tokenizer_type"] = SAME_CUTS.get(cuts, cuts)
        backend, extra = convert_gguf_tokenizer(architecture, words)
        if words.get("tokenizer_type") == "gpt2":
            _follow(cuts, backend, options)
        words.clear()
        options |= extra
        _add_special_tokens(backend, options)
    except Exception as error:  # whatever the libraries make of a vocabulary of another form
        raise _error(path, error) from error
    backend.save(str(folder / "tokenizer.json"), pretty=False)
    template = options.pop("chat_template", None)
    if not isinstance(template, str | None):
        raise _error(path, TypeError(f"a chat template of type {type(template).__name__}"))
    if template:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    config = {name: value for name, value in options.items() if value is not None}
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if length is not None:
        config["model_max_length"] = int(length)
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text + "\n", "utf-8")
    return None


def _follow(cuts: str, backend: Any, options: dict[str, Any]) -> None:
    """What the name of the cuts says beside them."""
    if cuts in DIGITS_APART:
        _cut_digits(backend)
    if cuts in WHOLE_WORDS:
        backend.model.ignore_merges = True
    if cuts in BEGUN:
        options.setdefault("add_bos_token", True)


def _cut_digits(backend: Any) -> None:
    """Each digit is a word of its own."""
    from tokenizers.pre_tokenizers import Digits, Sequence

    cuts = [Digits(individual_digits=True), backend.pre_tokenizer]
    backend.pre_tokenizer = Sequence(cuts)


def _add_special_tokens(backend: Any, options: dict[str, Any]) -> None:
    """Begin and end tokens around a text, as the file asks for."""
    from tokenizers.processors import TemplateProcessing

    begin = options.get("bos_token") if options.get("add_bos_token") else None
    end = options.get("eos_token") if options.get("add_eos_token") else None
    if begin is None and end is None:
        return

    def template(sequence: str, kind: int) -> str:
        parts = [begin, sequence, end]
        return " ".join(f"{part}:{kind}" for part in parts if part is not None)

    backend.post_processor = TemplateProcessing(
        single=template("$A", 0),
        pair=f"{template('$A', 0)} {template('$B', 1)}",
        special_tokens=[(t, backend.token_to_id(t)) for t in (begin, end) if t is not None],
    )


def _write_slowly(path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
    except (ValueError, KeyError, OSError) as error:
        raise _error(path, error) from error


def _error(path: Path, error: Exception) -> SourceError:
    return SourceError(
        "The tokenizer of the GGUF file cannot be rebuilt.", where=str(path), found=str(error)
    )
