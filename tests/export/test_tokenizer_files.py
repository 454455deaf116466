"""Tokenizers that are not as they should be: each error names the file, and a plan has it, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import lepton_compile as lc
from lepton_compile.errors import SourceError, is_failure
from lepton_compile.export.assets import write_assets
from lepton_compile.export.source import resolve, tokenizer_files
from lepton_compile.export.source.tokenizer_files import LARGE
from lepton_compile.export.source.tokenizer_json import fault_in
from lepton_compile.numerics.sample_text import token_ids
from tests.small import byte_tokenizer, llama, saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = saved("LlamaForCausalLM", llama(vocab_size=260), tmp_path / "model")
    byte_tokenizer(place)
    return place


def changed(file: Path, **keys: Any) -> None:
    found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**found, **keys}))


PIECE = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
TOKENS = [{"id": "3", "content": "a"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b'{"version": "1.0"', "delimiter"),
        (b'{"a": "\xff"}', "utf-8"),
        (b"null", "None"),
        (b"[" * 100_000, "recursion"),
        ({"model": None}, "ModelUntagged"),
        ({"version": "7"}, "version '7'"),
        ({"added_tokens": None}, "null, expected a sequence"),
        ({"added_tokens": TOKENS}, "expected u32"),
        ({"normalizer": PIECE}, "precompiled_charsmap"),
    ],
    ids=str,
)
def test_a_tokenizer_that_cannot_be_loaded(content: Any, message: str, folder: Path) -> None:
    file = folder / "tokenizer.json"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        changed(file, **content)
    with pytest.raises(SourceError, match="tokenizer cannot be loaded") as caught:
        resolve(str(folder), folder).tokenizer()
    assert caught.value.where == str(file)
    assert message in str(caught.value.found)
    assert caught.value.available == ("tokenizer.json", "tokenizer_config.json")
    assert caught.value.hint


WORDS = {"a": 0, "b": 1, "ab": 2}
UNIGRAM = {"type": "Unigram", "unk_id": 1, "vocab": [["a", 0.0], ["b", -1.5]]}


def loads(file: Path) -> bool:
    """Whether the library loads all of it. A panic of its is no Exception."""
    try:
        Tokenizer.from_file(str(file))
    except BaseException as error:
        if not is_failure(error):
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"type": "BPE", "vocab": WORDS, "merges": [["a", "b"]]}, None),
        ({"type": "BPE", "vocab": WORDS, "merges": ["#version: 0.2", "a b"]}, None),
        ({"type": "BPE", "vocab": {"a": -1}, "merges": []}, "model.vocab: 'a' is -1"),
        ({"type": "BPE", "vocab": {"a": 1.5}, "merges": []}, "model.vocab: 'a' is 1.5"),
        ({"type": "BPE", "vocab": WORDS, "merges": [["a", "c"]]}, "'ac' is not in the vocabulary"),
        ({"type": "BPE", "vocab": WORDS, "merges": ["a b b"]}, "model.merges: ['a', 'b', 'b']"),
        ({"type": "BPE", "vocab": WORDS, "merges": [["a", 1]]}, "model.merges: ['a', 1]"),
        ({"type": "BPE", "vocab": WORDS}, "Missing vocab/merges"),
        ({"type": "BPE", "vocab": [], "merges": []}, "expected a map"),
        ({"type": "WordPiece", "vocab": WORDS}, "missing field"),
        ({"type": "WordLevel", "vocab": WORDS, "unk_token": "a"}, None),
        (UNIGRAM, None),
        ({**UNIGRAM, "unk_id": 2}, "UnkIdNotInVocabulary"),
        ({**UNIGRAM, "unk_id": -1}, "expected usize"),
        ({**UNIGRAM, "vocab": [*UNIGRAM["vocab"], ["c", None]]}, "model.vocab: ['c', None]"),
        ({**UNIGRAM, "vocab": [*UNIGRAM["vocab"], ["c"]]}, "model.vocab: ['c']"),
        (None, "did not match any variant"),
    ],
    ids=str,
)
def test_a_vocabulary_is_looked_at_without_loading_it(
    model: Any, message: str | None, folder: Path
) -> None:
    """What is refused here is what the library refuses, and no more."""
    file = folder / "tokenizer.json"
    changed(file, model=model)
    fault = fault_in(file)
    if message is None:
        assert fault is None
        assert loads(file)
        return
    assert message in str(fault)
    assert not loads(file)
    with pytest.raises(SourceError, match="tokenizer cannot be loaded") as refused:
        lc.plan(model=str(folder))
    assert refused.value.where == str(file)


@pytest.mark.parametrize("way", [lc.plan, lc.build])
def test_a_large_one_is_looked_at_while_the_model_is_captured(
    way: Any, folder: Path, tmp_path: Path
) -> None:
    words = {f"{number:06}": number for number in range(100_000)}
    model = {"type": "BPE", "vocab": words, "merges": [["000001", "000002"]]}
    changed(folder / "tokenizer.json", model=model)
    assert (folder / "tokenizer.json").stat().st_size > LARGE
    source = resolve(str(folder), folder)  # nobody waits for it
    with pytest.raises(SourceError, match="tokenizer cannot be loaded"):
        source.check_vocabulary()
    options = {"output": tmp_path / "out"}
    if way is lc.build:
        options |= {"check": False, "verify": False}
    with pytest.raises(SourceError, match="tokenizer cannot be loaded") as caught:
        way(model=str(folder), **options)
    assert caught.value.where == str(folder / "tokenizer.json")
    assert "'000001000002' is not in the vocabulary" in str(caught.value.found)
    assert not (tmp_path / "out").exists()


def test_a_large_one_that_is_sound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_files, "LARGE", 10)
    resolve(str(folder), folder).check_vocabulary()


@pytest.mark.parametrize("name", ["vocab.json", "vocab.txt", "merges.txt"])
def test_older_vocabularies_are_text(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"\xff\xfe")
    resolve(str(folder), folder)  # nobody reads them beside tokenizer.json
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SourceError) as caught:
        resolve(str(folder), folder)
    assert caught.value.where == str(folder / name)


def test_added_tokens_that_are_missing(folder: Path) -> None:
    """The library does without, transformers does not."""
    found = json.loads((folder / "tokenizer.json").read_text())
    del found["added_tokens"]
    (folder / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(SourceError, match="added_tokens: None") as caught:
        resolve(str(folder), folder).tokenizer()
    assert caught.value.where == str(folder / "tokenizer.json")


def test_a_tokenizer_whose_template_names_a_token_it_has_not(folder: Path) -> None:
    """The library in Rust panics, which is no Exception."""
    parts = [{"SpecialToken": {"id": "<q>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": parts, "pair": [], "special_tokens": {}}
    changed(folder / "tokenizer.json", post_processor=template)
    tokenizer = resolve(str(folder), folder).tokenizer()
    with pytest.raises(SourceError, match="fails on a text") as caught:
        token_ids(tokenizer, "text", special=True)
    assert str(folder) in str(caught.value.where)


def test_one_that_is_to_be_in_lower_case(folder: Path, tmp_path: Path) -> None:
    changed(folder / "sentence_bert_config.json", do_lower_case=True)
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "tokenizer.json").write_text("{}")
    (out := tmp_path / "out").mkdir()
    with pytest.raises(SourceError, match="tokenizer cannot be loaded") as caught:
        write_assets(resolve(str(folder), folder), out)
    assert caught.value.where == str(folder / "tokenizer.json")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", []),
        ("special_tokens_map.json", None),
        ("added_tokens.json", 3),
        ("generation_config.json", "a"),
        ("tokenizer_config.json", {"eos_token": 7}),
        ("special_tokens_map.json", {"pad_token": ["a"]}),
        ("tokenizer_config.json", {"mask_token": "\ud800"}),
        ("tokenizer_config.json", {"padding_side": None}),
        ("tokenizer_config.json", {"model_max_length": "512"}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", {"tokenizer_class": 3}),
        ("tokenizer_config.json", {"extra_special_tokens": 1}),
    ],
    ids=str,
)
def test_small_files_are_looked_at_in_a_plan(file: str, content: Any, folder: Path) -> None:
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(SourceError) as caught:
        lc.plan(model=str(folder))
    assert caught.value.where == str(folder / file)
    value = next(iter(content.values())) if isinstance(content, dict) else content
    assert caught.value.found == f"{value!r:.60}"
    assert caught.value.hint


def test_half_characters_in_other_keys_are_kept_as_json_has_them(
    folder: Path, tmp_path: Path
) -> None:
    changed(folder / "tokenizer_config.json", own="\ud800")
    (out := tmp_path / "out").mkdir()
    write_assets(resolve(str(folder), folder), out)
    assert json.loads((out / "tokenizer_config.json").read_text("utf-8"))["own"] == "\ud800"
