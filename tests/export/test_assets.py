"""Configuration, tokenizer and chat template as the artifact carries them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export.assets import write_assets
from lepton_compile.export.generation import generation
from lepton_compile.export.source import Source, resolve
from lepton_compile.export.source.folder import inputs
from tests.export import gguf_files

WORDS = {"[PAD]": 0, "[UNK]": 1, "<s>": 2, "</s>": 3, "one": 4, "two": 5}
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    gguf_files.tiny_model("llama").save_pretrained(path)
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


def add_tokenizer(folder: Path, **options: Any) -> None:
    backend = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", bos_token="<s>", eos_token="</s>", **options
    ).save_pretrained(folder)


def opened(folder: Path) -> Source:
    return resolve(str(folder), folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_without_a_tokenizer(folder: Path, out: Path) -> None:
    assert write_assets(opened(folder), out) is None
    assert names(out) == ["config.json", "generation_config.json"]
    assert (out / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_tokenizer_and_template(folder: Path, out: Path) -> None:
    add_tokenizer(folder, chat_template=TEMPLATE)
    assert write_assets(opened(folder), out) == {
        "file": "tokenizer.json",
        "config": "tokenizer_config.json",
        "chat_template": "chat_template.jinja",
    }
    assert (out / "chat_template.jinja").read_text() == TEMPLATE
    loaded = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert loaded.encode("one two").ids == [4, 5]
    assert json.loads((out / "tokenizer_config.json").read_text())["eos_token"] == "</s>"


@pytest.mark.parametrize(
    "value", [3, {"a": 1}, [3], [{"name": "default", "template": 3}], "\ud800"]
)
def test_templates_that_are_no_text(value: Any, folder: Path, out: Path) -> None:
    add_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": value}))
    with pytest.raises(SourceError, match="chat template is no text") as caught:
        write_assets(opened(folder), out)
    assert caught.value.where == str(file)
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match="chat template is no text") as caught:
        write_assets(opened(folder), out)
    assert caught.value.where == str(folder / "chat_template.jinja")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% if messages %}", "line 1: Unexpected end of template"),
        ("a\n{{ b", "line 2: unexpected end"),
        ("{% for m in messages %}" * 3000, "recursion"),
        ("x" * 300_000, "300,000 characters"),
    ],
    ids=["block", "value", "deep", "long"],
)
def test_templates_that_nobody_reads(template: str, message: str, folder: Path) -> None:
    """A plan says so, too; what fails when it is rendered is not looked for."""
    add_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(SourceError, match="chat template cannot be read") as caught:
        lc.plan(model=str(folder))
    assert caught.value.where == str(folder / "chat_template.jinja")
    assert message in str(caught.value.found)
    (folder / "chat_template.jinja").write_text("{{ 9**9**9**9 }}{{ own(a | other) }}")
    opened(folder)


def test_template_inside_the_configuration(folder: Path, out: Path) -> None:
    """Older folders keep it there; with several by name, the default one counts."""
    add_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    templates = [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": templates}))
    write_assets(opened(folder), out)
    assert (out / "chat_template.jinja").read_text() == TEMPLATE
    assert "chat_template" not in json.loads((out / "tokenizer_config.json").read_text())


def _template_of(folder: Path, out: Path, **options: Any) -> str | None:
    written = write_assets(opened(folder), out, **options)
    assert written is not None
    file = written["chat_template"]
    return None if file is None else (out / file).read_text()


def test_template_of_an_older_processor(folder: Path, out: Path) -> None:
    """Where the tokenizer has none; it is among the files that a build records."""
    add_tokenizer(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert _template_of(folder, out) == TEMPLATE
    assert folder / "chat_template.json" in inputs(folder)


def test_which_template_counts(folder: Path, out: Path) -> None:
    """The tokenizer's, but for texts with pictures, as transformers has it: first that of the
    processor's configuration, then that of its own file before the one of both."""
    add_tokenizer(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": "words"}))
    assert _template_of(folder, out, processor=True) == "words"
    (folder / "chat_template.json").write_text('{"chat_template": "older"}')
    assert _template_of(folder, out) == "words"
    assert _template_of(folder, out, processor=True) == "older"
    (folder / "chat_template.jinja").write_text("both")
    assert _template_of(folder, out) == "both"
    assert _template_of(folder, out, processor=True) == "older"
    (folder / "processor_config.json").write_text('{"chat_template": "pictures"}')
    assert _template_of(folder, out) == "both"
    assert _template_of(folder, out, processor=True) == "pictures"
    (folder / "processor_config.json").write_text('{"chat_template": 3}')
    with pytest.raises(SourceError, match="chat template is no text") as caught:
        write_assets(opened(folder), out, processor=True)
    assert caught.value.where == str(folder / "processor_config.json")


def test_tokens_are_plain_text_and_code_is_not_named(folder: Path, out: Path) -> None:
    add_tokenizer(folder)
    (folder / "special_tokens_map.json").write_text('{"cls_token": {"content": "<s>"}}')
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": {"x": "y.Z"}}))
    write_assets(opened(folder), out)
    written = json.loads((out / "tokenizer_config.json").read_text())
    assert written["cls_token"] == "<s>"
    assert "auto_map" not in written


def test_a_vocabulary_without_the_fast_form_is_converted(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "bert"
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    ).save_pretrained(path)
    (path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\none\ntwo\n")
    (path / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert _template_of(path, out) == TEMPLATE
    assert Tokenizer.from_file(str(out / "tokenizer.json")).encode("two").ids == [2, 6, 3]


def test_gguf(tmp_path: Path, out: Path) -> None:
    gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    source = resolve("m.gguf", tmp_path)
    written = write_assets(source, out)
    assert written is not None
    assert written["chat_template"] == "chat_template.jinja"
    assert json.loads((out / "config.json").read_text())["model_type"] == "llama"
    loaded = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert loaded.encode("ab").ids[0] == 1
    assert generation(source) == {"eos": [2], "bos": 1, "pad": 0, "vocabulary": 96}


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_twice_gives_the_same_bytes(kind: str, folder: Path, tmp_path: Path) -> None:
    add_tokenizer(folder, chat_template=TEMPLATE)
    gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    model = folder if kind == "folder" else tmp_path / "m.gguf"
    written = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        write_assets(resolve(str(model), tmp_path), tmp_path / run)
        written.append({p.name: p.read_bytes() for p in (tmp_path / run).iterdir()})
    assert written[0] == written[1]
    assert written[0]
