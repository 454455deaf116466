"""Sparse encoders, built and held against sentence-transformers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import lepton_compile as lc
from lepton_compile.errors import SourceError
from lepton_compile.export import resolve
from lepton_compile.export.sparse import is_sparse_model, sparse_pooling
from lepton_compile.runtime import LoaderError
from tests.api.rounded import verified
from tests.small import bert, byte_tokenizer, saved

TEXTS = ["hello world", "a much longer text that goes on", "x"]
# fp32 in another order of additions; weights are up to 6 here.
TOLERANCE = 1e-5

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT for masked words."""
    folder = tmp_path_factory.mktemp("sparse") / "encoder"
    saved("BertForMaskedLM", bert(vocab_size=260), folder)
    byte_tokenizer(folder)
    return folder


def sparse(encoder: Path, folder: Path, **how: Any) -> Any:
    """Saved by sentence-transformers; its own model, to compare with."""
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer

    reader = Transformer(str(encoder), transformer_task="fill-mask")
    model = SparseEncoder(modules=[reader, SpladePooling(**how)], device="cpu")
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("function", ["relu", "log1p_relu"])
def test_as_sentence_transformers(
    strategy: str, function: str, encoder: Path, tmp_path: Path
) -> None:
    how = {"pooling_strategy": strategy, "activation_function": function}
    truth = sparse(encoder, tmp_path / "model", **how)
    wanted = truth.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    built = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", verify={"tokens": 256})
    graph = onnx.load(built.path / "engines/ort-cpu/model.onnx", load_external_data=False).graph
    assert [output.name for output in graph.output] == ["sentence_embedding"]
    with lc.load(built.path, threads=1) as model:
        assert model.task == "sparse-embedding"
        assert model.manifest["embedding"]["pooling"] == strategy
        found = model.embed(TEXTS)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= TOLERANCE
        assert found.min() == 0
        for words, row in zip(model.words(TEXTS), wanted, strict=True):
            told = dict(truth.decode(torch.from_numpy(row)))
            assert words == pytest.approx(told, abs=TOLERANCE)
            assert [*words.values()] == sorted(words.values(), reverse=True)
        assert [len(words) for words in model.words(TEXTS, top_k=3)] == [3, 3, 3]


@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_rounded(precision: str, encoder: Path, tmp_path: Path) -> None:
    sparse(encoder, tmp_path / "model")
    found = verified(tmp_path / "model", precision, tmp_path / "out")
    assert found["embedding"] == "sentence_embedding"
    assert 0.995 <= found["cosine"] < 1


def test_a_masked_language_model_is_told_to_be_one(encoder: Path, tmp_path: Path) -> None:
    built = lc.build(
        model=str(encoder),
        task="sparse-embedding",
        pooling="sum",
        output=tmp_path / "out",
        verify=False,
    )
    with lc.load(built.path, threads=1) as model:
        assert model.manifest["embedding"] == {
            "pooling": "sum",
            "dense": [],
            "normalize": False,
            "logarithms": 1,
            "output": "sentence_embedding",
            "max_tokens": None,
            "prompts": {},
            "prompt": None,
        }
        for wrong in (0, True):
            with pytest.raises(LoaderError, match=f"out of its range: top_k={wrong}"):
                model.words(TEXTS, top_k=wrong)
        with pytest.raises(LoaderError, match="give a list of texts"):
            model.words("x")
    script = [sys.executable, str(built.path / "loader.py"), "--text", "hello", "--threads", "1"]
    made = subprocess.run(script, capture_output=True, text=True, check=True)
    assert json.loads(made.stdout)["words"]


def modules(folder: Path, *kinds: str) -> None:
    """Replace what the folder says of its modules."""
    entries = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("kinds", "hint"),
    [
        (("Router", "SpladePooling"), "folder of the model that reads documents"),
        (("Transformer", "Pooling", "SparseAutoEncoder"), "the encoder alone"),
        (("SparseStaticEmbedding",), "the encoder alone"),
        (("MLMTransformer", "SpladePooling", "Normalize"), "the encoder alone"),
    ],
)
def test_modules_that_cannot_be_compiled(
    kinds: tuple[str, ...], hint: str, encoder: Path, tmp_path: Path
) -> None:
    folder = saved("BertForMaskedLM", bert(vocab_size=260), tmp_path / "model")
    modules(folder, *kinds)
    source = resolve(str(folder), tmp_path)
    assert is_sparse_model(source)
    with pytest.raises(SourceError, match="modules that cannot be compiled") as caught:
        sparse_pooling(source)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("file", "settings", "words"),
    [
        ("1_SpladePooling/config.json", {"pooling_strategy": "mean"}, "pooling_strategy: mean"),
        ("1_SpladePooling/config.json", {"activation_function": "gelu"}, "function: gelu"),
        (
            "sentence_bert_config.json",
            {"transformer_task": "feature-extraction"},
            "transformer_task: feature-extraction",
        ),
    ],
)
def test_settings_that_cannot_be_compiled(
    file: str, settings: dict[str, str], words: str, encoder: Path, tmp_path: Path
) -> None:
    sparse(encoder, tmp_path / "model")
    (tmp_path / "model" / file).write_text(json.dumps(settings))
    with pytest.raises(SourceError, match=re.escape(words)):
        lc.build(model=str(tmp_path / "model"), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("task", "times"), [("fill-mask", 4), ("sparse-embedding", 2)])
def test_a_plan_counts_scores_of_words(task: str, times: int, tmp_path: Path) -> None:
    """Those of 8 texts of 64 tokens, which for a small model are most of what it takes."""
    folder = saved("BertForMaskedLM", bert(vocab_size=30_000, hidden_size=16), tmp_path / "model")
    plans = [lc.plan(model=str(folder), task=name) for name in (task, "feature-extraction")]
    found, other = (plan.verify.peak_memory_bytes for plan in plans if plan.verify)
    words = times * 4 * 8 * 64 * 30_000
    head = plans[0].parameters - plans[1].parameters
    assert words <= found - other <= words + 8 * head + (1 << 20)
