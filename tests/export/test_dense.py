"""Linear layers behind the pooling: read from their folders, put into the graph, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import lepton_compile as lc
from lepton_compile.errors import CheckpointError, SourceError
from lepton_compile.export import resolve
from lepton_compile.export.dense import ACTIVATIONS, read_dense
from tests.export.harness import session_of_code
from tests.small import SIZES, bert, byte_tokenizer, saved

WIDTH = int(SIZES["hidden_size"])
TANH = "torch.nn.modules.activation.Tanh"
IDENTITY = "torch.nn.modules.linear.Identity"


def dense(folder: Path, inner: int, outer: int, activation: str, **changes: Any) -> Path:
    """A module as sentence-transformers saves it, with random weights."""
    folder.mkdir(parents=True)
    settings = {"in_features": inner, "out_features": outer, "bias": True}
    settings |= {"activation_function": activation, **changes}
    (folder / "config.json").write_text(json.dumps(settings))
    weights = {"linear.weight": torch.randn(outer, inner) * 0.2}
    if settings["bias"]:
        weights["linear.bias"] = torch.randn(outer) * 0.2
    save_file(weights, folder / "model.safetensors")
    return folder


def sentence_model(folder: Path) -> Path:
    """An encoder with two of them: wider, then narrower than it."""
    saved("BertModel", bert(vocab_size=260), folder)
    byte_tokenizer(folder)
    torch.manual_seed(1)
    dense(folder / "2_Dense", WIDTH, 96, IDENTITY, bias=False)
    dense(folder / "3_Dense", 96, 32, TANH)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    kinds = ("Transformer", "Pooling", "Dense", "Dense", "Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def test_a_folder_is_read(tmp_path: Path) -> None:
    found = read_dense(dense(tmp_path / "d", 8, 4, TANH))
    assert (found.inner, found.outer, found.bias, found.activation) == (8, 4, True, "Tanh")
    assert found.parameters == 36
    assert {name: list(t.shape.numpy()) for name, t in found.tensors().items()} == {
        "0.weight": [4, 8],
        "0.bias": [4],
    }
    assert list(found.module().state_dict()) == list(found.tensors())


def test_an_activation_that_is_not_known(tmp_path: Path) -> None:
    folder = dense(tmp_path / "d", 8, 4, "torch.nn.modules.activation.Softmin")
    with pytest.raises(SourceError, match="activation of a Dense module") as caught:
        read_dense(folder)
    assert caught.value.found == "Softmin"
    assert caught.value.available == tuple(ACTIVATIONS)


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_each_activation_is_that_of_pytorch(name: str, tmp_path: Path) -> None:
    folder = dense(tmp_path / "d", 6, 4, f"torch.nn.modules.activation.{name}")
    _, activation = read_dense(folder).module()
    x = torch.randn(3, 6)
    (found,) = session_of_code(activation).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, activation(x).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ["{", "[]", '{"in_features": 8}', '{"in_features": "x"}'])
def test_a_configuration_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    folder = dense(tmp_path / "d", 8, 4, TANH)
    (folder / "config.json").write_text(text)
    with pytest.raises(SourceError, match="Dense module cannot be read") as caught:
        read_dense(folder)
    assert caught.value.where == str(folder / "config.json")


def test_weights_of_another_shape(tmp_path: Path) -> None:
    folder = dense(tmp_path / "d", 8, 4, TANH)
    save_file({"linear.weight": torch.zeros(4, 9)}, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match="not those that its configuration describes"
    ) as caught:
        read_dense(folder).tensors()
    assert caught.value.found == "linear.weight [4, 9]"
    assert caught.value.available == ("linear.weight [4, 8]", "linear.bias [4]")


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = dense(tmp_path / "d", 8, 4, TANH)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="pickle"):
        read_dense(folder)


@pytest.mark.parametrize("name", ["head", "modules/head"])
def test_folders_of_any_name_are_digested(name: str, tmp_path: Path) -> None:
    """A rebuild from other weights would else have the same lock."""
    model = sentence_model(tmp_path)
    (model / "modules").mkdir()
    (model / "2_Dense").rename(model / name)
    file = model / "modules.json"
    file.write_text(file.read_text().replace("2_Dense", name))
    before = resolve(str(model), tmp_path).digests()
    assert {f"{name}/model.safetensors", f"{name}/config.json"} <= before.keys()
    weights = model / name / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    after = resolve(str(model), tmp_path).digests()
    assert [k for k in before if before[k] != after[k]] == [f"{name}/model.safetensors"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[3]", "cannot be read"),
        ('[{"path": ""}]', "cannot be read"),
        ('{"a": 1}', "cannot be read"),
        ('[{"type": "models.Dense", "path": "../other"}]', "outside the model's folder"),
        ('[{"type": "models.Dense", "path": "/etc"}]', "outside the model's folder"),
        ('[{"type": "models.Dense", "path": "%s"}]' % ("d" * 5000), "no folder that there can be"),
        ('[{"type": "models.Dense", "path": "\\u0000"}]', "no folder that there can be"),
    ],
)
def test_a_list_of_modules_that_is_none(text: str, said: str, tmp_path: Path) -> None:
    model = sentence_model(tmp_path)
    (model / "modules.json").write_text(text)
    with pytest.raises(SourceError, match=said) as caught:
        lc.plan(model=str(model))
    assert caught.value.where == str(model / "modules.json")
    resolve(str(model), tmp_path).digests()


@pytest.mark.parametrize("quantize", [None, "int8", "auto"])
def test_an_embedding_goes_through_them(quantize: str | None, tmp_path: Path) -> None:
    model = sentence_model(tmp_path / "model")
    recipe = {"model": str(model), "shapes": {"sequence": "1..48"}}
    artifact = lc.build(
        recipe if quantize is None else {**recipe, "quantize": quantize}, output=tmp_path / "a"
    )
    report = json.loads((tmp_path / "a" / "report.json").read_text("utf-8"))
    (embedding,) = (o for o in report["verify"]["outputs"] if o["name"] == "sentence_embedding")
    assert embedding["cosine_min"] > (0.9999999 if quantize is None else 0.99)
    assert artifact.manifest.embedding is not None
    assert artifact.manifest.embedding["dense"] == [
        {"width": 96, "activation": "identity"},
        {"width": 32, "activation": "tanh"},
    ]
    assert set(report["lock"]["inputs"]) >= {"2_Dense/model.safetensors", "3_Dense/config.json"}
    with lc.load(artifact.path) as engine:
        found = engine.embed(["one text", "another, that is longer"])
    assert found.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_without_a_pooling_other_modules_are_not_looked_at(tmp_path: Path) -> None:
    model = sentence_model(tmp_path / "model")
    file = model / "modules.json"
    file.write_text(file.read_text().replace("models.Dense", "models.LSTM"))
    recipe = {"model": str(model), "shapes": {"sequence": "1..48"}}
    with pytest.raises(SourceError, match="cannot be compiled"):
        lc.build(recipe, output=tmp_path / "a")
    artifact = lc.build({**recipe, "pooling": "none"}, output=tmp_path / "a")
    assert artifact.manifest.embedding is None
    assert artifact.manifest.engines[0]["compared"]["engine"] is True


def test_they_are_counted(tmp_path: Path) -> None:
    model = sentence_model(tmp_path)
    with_them = lc.plan(model=str(model)).parameters
    without = lc.plan(model=str(model), task="feature-extraction", pooling="none").parameters
    assert with_them - without == WIDTH * 96 + 96 * 32 + 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_residual": True}, "use_residual: True"),
        ({"module_input_name": "token_embeddings"}, "module_input_name: token_embeddings"),
        ({"module_output_name": "other"}, "module_output_name: other"),
    ],
)
def test_what_else_it_does_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = dense(tmp_path / "2_Dense", 8, 8, TANH, **changes)
    with pytest.raises(SourceError, match="does what cannot be compiled") as caught:
        read_dense(folder)
    assert words in str(caught.value)
