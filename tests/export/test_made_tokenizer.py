"""Tokenizers that transformers has in slow form alone, against what the slow ones give.

What those give is in ``slow_tokenizers``, for texts and ids, where they need sentencepiece.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export.source import Source, resolve
from lepton_compile.export.source.made_tokenizer import made_tokenizer, write_made_tokenizer
from lepton_compile.export.source.made_tokenizer.pieces_proto import model_class
from tests.export.harness import save
from tests.export.zoo_pairs import PAIRS

SLOW = Path(__file__).parent / "slow_tokenizers"
NAMES = ["m2m_100", "m2m_100_bpe", "marian", "plbart"]
TASK = "text2text-generation"
SHORT = settings(max_examples=40, deadline=None)


def written(folder: Path, out: Path) -> Tokenizer:
    made = made_tokenizer(folder)
    assert made is not None
    out.mkdir(exist_ok=True)
    write_made_tokenizer(made, out)
    return Tokenizer.from_file(str(out / "tokenizer.json"))


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    root = tmp_path_factory.mktemp("made")
    return {name: written(SLOW / name, root / name) for name in NAMES}


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SLOW / name / "expected.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_ids_of_texts(name: str, fast: dict[str, Tokenizer]) -> None:
    told = expected(name)
    assert len(told["encoded"]) > 250
    differ = [
        (text, ids, fast[name].encode(text).ids)
        for text, ids in told["encoded"]
        if fast[name].encode(text).ids != ids
    ]
    assert not differ
    assert fast[name].get_vocab_size() == told["tokens"]


@pytest.mark.parametrize("name", NAMES)
def test_texts_of_ids(name: str, fast: dict[str, Tokenizer]) -> None:
    rows = expected(name)["decoded"]
    assert [fast[name].decode(row) for row, _ in rows] == [text for _, text in rows]


@SHORT
@given(text=st.text(max_size=40))
@pytest.mark.parametrize("name", NAMES)
def test_any_text_has_ids(name: str, text: str, fast: dict[str, Tokenizer]) -> None:
    ids = fast[name].encode(text).ids
    assert max(ids) < fast[name].get_vocab_size()


@SHORT
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_bytes(text: str, byt5: tuple[Any, Tokenizer]) -> None:
    slow, made = byt5
    ids = slow(text)["input_ids"]
    assert made.encode(text).ids == ids
    if "\ufffd" not in text:
        assert made.decode(ids) == slow.decode(ids, skip_special_tokens=True)


@SHORT
@given(ids=st.lists(st.integers(0, 383), max_size=30))
def test_answers_in_bytes(ids: list[int], byt5: tuple[Any, Tokenizer]) -> None:
    slow, made = byt5
    text = slow.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in text:
        assert made.decode(ids) == text


@pytest.fixture(scope="module")
def byt5(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Tokenizer]:
    """The slow one needs no library, and no file but the one that names it."""
    folder = tmp_path_factory.mktemp("byt5")
    transformers.ByT5Tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    return transformers.ByT5Tokenizer.from_pretrained(folder), written(folder, folder / "out")


@pytest.mark.parametrize("text", ["a</s> b", "<extra_id_0> x <extra_id_124>", " <pad> a", "<unk>"])
def test_special_tokens_among_bytes(text: str, byt5: tuple[Any, Tokenizer]) -> None:
    slow, made = byt5
    assert made.encode(text).ids == slow(text)["input_ids"]


def test_languages(fast: dict[str, Tokenizer]) -> None:
    """Whole tokens by name: before the text of one, in the text of the other."""
    french = fast["m2m_100"].token_to_id("__fr__")
    assert fast["m2m_100_bpe"].encode("a").tokens[0] == "__fr__"
    assert fast["m2m_100"].decode([french]) == ""
    assert fast["marian"].encode(">>fra<< Hello").tokens[0] == ">>fra<<"


def test_pieces_that_have_no_number(tmp_path: Path) -> None:
    """Text is cut into others; the slow one makes the unknown word of it."""
    folder = copied("marian", tmp_path / "m")
    words = [*json.loads((folder / "vocab.json").read_text("utf-8"))]
    words.remove("▁the")
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    found = written(folder, tmp_path / "out").encode("the").tokens
    assert "".join(found) == "▁the</s>"
    assert len(found) > 2


def copied(name: str, folder: Path) -> Path:
    shutil.copytree(SLOW / name, folder, ignore=shutil.ignore_patterns("expected.json"))
    return folder


def changed(file: Path, **keys: Any) -> None:
    found = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**found, **keys}), "utf-8")


def model(kind: str, name: str, folder: Path, tokens: int) -> Path:
    """A tiny model with one of the tokenizers."""
    config = PAIRS[kind][0]()
    config.vocab_size = tokens
    config.pad_token_id, config.eos_token_id = 1, 2
    if kind == "marian":
        config.pad_token_id, config.eos_token_id = tokens - 1, 0
        config.decoder_start_token_id = tokens - 1
        config.decoder_vocab_size, config.bos_token_id = tokens, None
    save(lambda: config, TASK, folder)
    for file in (SLOW / name).iterdir():
        if file.name not in ("config.json", "expected.json"):
            shutil.copyfile(file, folder / file.name)
    return folder


@pytest.mark.parametrize(
    ("kind", "name", "start"),
    [("marian", "marian", None), ("m2m-100", "m2m_100", "__fr__"), ("plbart", "plbart", None)],
)
def test_from_a_folder_to_an_answer(
    kind: str, name: str, start: str | None, tmp_path: Path
) -> None:
    tokens = expected(name)["tokens"]
    folder, out = model(kind, name, tmp_path / "model", tokens), tmp_path / "out"
    lc.build(model=str(folder), output=out, tactics="default", verify={"tokens": 64})
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["verify"]["cosine"] > 0.9999
    with lc.load(out) as built:
        text, ids = next(each for each in expected(name)["encoded"] if "I like" in each[0])
        assert built.tokenizer.encode(text).ids == ids
        answer = built.generate(text, max_new_tokens=6, start=start)
        assert answer.tokens == built.generate(ids, max_new_tokens=6, start=start).tokens
        assert answer.text == built.tokenizer.decode(answer.tokens)


def piece(text: str, score: float = -1.0, kind: int = 1) -> dict[str, Any]:
    return {"piece": text, "score": score, "type": kind}


def proto(pieces: list[dict[str, Any]], **told: Any) -> bytes:
    """The file of a sentencepiece model."""
    whole = model_class()()
    for each in pieces:
        whole.pieces.add(**each)
    whole.trainer_spec.SetInParent()
    whole.normalizer_spec.SetInParent()
    for name, value in told.items():
        spec = whole.trainer_spec if hasattr(whole.trainer_spec, name) else whole.normalizer_spec
        setattr(spec, name, value)
    data: bytes = whole.SerializeToString()
    return data


FEW = [piece("<unk>", 0, 2), piece("a"), piece("▁", -2.0)]
SOUND = (SLOW / "marian" / "source.spm").read_bytes()


@pytest.mark.parametrize(
    ("data", "message", "found"),
    [
        (b"", "cannot be read", "0 pieces"),
        (SOUND[:2000], "cannot be read", ""),
        (SOUND[:-40], "cannot be read", ""),
        (b"\xff" * 50, "cannot be read", ""),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "cannot be read", ""),
        (proto([*FEW, piece("a")]), "cannot be read", "there twice"),
        (proto([*FEW, piece("b", float("nan"))]), "cannot be read", "scores that are no numbers"),
        (proto(FEW[:1]), "cannot be read", "no pieces for any text"),
        (proto(FEW, precompiled_charsmap=b"abcdefgh"), "cannot be read", "rules for characters"),
        (proto(FEW).replace(b"a", b"\xff"), "cannot be read", ""),
        (proto(FEW, model_type=4), "cannot be written as a tokenizer.json", "a char model"),
        (proto(FEW, byte_fallback=True), "cannot be written", "bytes for unknown characters"),
        (proto(FEW, treat_whitespace_as_suffix=True), "cannot be written", "behind words"),
        (proto(FEW, escape_whitespaces=False), "cannot be written", "stay spaces"),
    ],
    ids=range(14),
)
def test_a_sentencepiece_file_that_is_damaged(
    data: bytes, message: str, found: str, tmp_path: Path
) -> None:
    """A plan says so: it is read when the model is found."""
    folder = model("marian", "marian", tmp_path / "m", expected("marian")["tokens"])
    (folder / "source.spm").write_bytes(data)
    with pytest.raises(SourceError, match=message) as caught:
        lc.plan(model=str(folder))
    assert caught.value.where == str(folder / "source.spm")
    assert found in str(caught.value.found)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "not an object"),
        ({}, "0 words, none of them 0"),
        ({"</s>": 0, "<unk>": 2}, "2 words, none of them 1"),
        ({"</s>": 0, "<unk>": 0}, "'</s>' and '<unk>' are 0"),
        ({"</s>": 0, "<unk>": "1"}, "'<unk>' is '1'"),
        ({"</s>": 0, "<unk>": True}, "'<unk>' is True"),
        ({"</s>": 0, "a": 1}, "<unk>"),
        ({"</s>": 0, "<unk>": 1, "\ud800": 2}, "half a character"),
    ],
)
def test_a_vocabulary_that_is_none(words: Any, found: str, tmp_path: Path) -> None:
    folder = model("marian", "marian", tmp_path / "m", expected("marian")["tokens"])
    (folder / "vocab.json").write_text(json.dumps(words))
    with pytest.raises(SourceError) as caught:
        lc.plan(model=str(folder))
    assert caught.value.where == str(folder / "vocab.json")
    assert found in str(caught.value)


@pytest.mark.parametrize("missing", ["source.spm", "target.spm", "vocab.json"])
def test_a_file_that_is_missing(missing: str, tmp_path: Path) -> None:
    folder = copied("marian", tmp_path / "m")
    (folder / missing).unlink()
    with pytest.raises(SourceError, match="file of the tokenizer is missing") as caught:
        made_tokenizer(folder)
    assert caught.value.where == str(folder / missing)


@pytest.mark.parametrize(
    ("name", "told", "found"),
    [
        ("marian", {"separate_vocabs": True}, "separate_vocabs: true"),
        ("m2m_100", {"src_lang": "xx"}, "src_lang: 'xx'"),
        ("m2m_100", {"language_codes": "nllb"}, "language_codes: 'nllb'"),
        ("m2m_100", {"language_codes": ["a"]}, "language_codes: ['a']"),
        ("plbart", {"src_lang": "ruby"}, "src_lang: 'ruby'"),
        ("plbart", {"language_codes": 3}, "language_codes: 3"),
        ("byt5", {"tokenizer_class": "ByT5Tokenizer", "extra_ids": -1}, "extra_ids: -1"),
    ],
)
def test_settings_that_cannot_be_met(
    name: str, told: dict[str, Any], found: str, tmp_path: Path
) -> None:
    folder = copied("marian" if name == "byt5" else name, tmp_path / "m")
    changed(folder / "tokenizer_config.json", **told)
    with pytest.raises(SourceError) as caught:
        made_tokenizer(folder)
    assert caught.value.where == str(folder / "tokenizer_config.json")
    assert caught.value.found == found


def test_who_has_a_fast_form_keeps_it(tmp_path: Path) -> None:
    folder = copied("marian", tmp_path / "m")
    written(SLOW / "marian", folder)
    assert made_tokenizer(folder) is None


def test_a_model_without_a_tokenizer(tmp_path: Path) -> None:
    save(PAIRS["marian"][0], TASK, tmp_path / "m")
    assert resolve(str(tmp_path / "m"), tmp_path).tokenizer() is None
    (tmp_path / "m" / "tokenizer_config.json").write_text('{"tokenizer_class": "MarianTokenizer"}')
    with pytest.raises(SourceError, match="file of the tokenizer is missing"):
        resolve(str(tmp_path / "m"), tmp_path)


def test_what_is_read_has_digests(tmp_path: Path) -> None:
    folder = model("marian", "marian", tmp_path / "m", expected("marian")["tokens"])
    source: Source = resolve(str(folder), tmp_path)
    assert {"source.spm", "target.spm", "vocab.json"} < {*source.digests()}
    tokenizer = source.tokenizer()
    assert tokenizer is not None
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.pad_token_id == expected("marian")["tokens"] - 1
