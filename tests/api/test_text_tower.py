"""Texts of a model with two towers: padding and letters are as it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lepton_compile as lc
from tests.export.test_text_tower import WHOLES, whole
from tests.small import byte_tokenizer

TEXTS = ["A Cat", "x", "a longer text, of which the end is cut", "A"]
# fp32 in another order of additions.
TOLERANCE = 1e-5
PAD = 3


@pytest.fixture(scope="module", params=["Siglip", "Siglip2"])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Path]:
    """A model that reads its padding, which is no 0, and what was built of it."""
    folder = tmp_path_factory.mktemp("towers")
    text = WHOLES[request.param]["text_config"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(text, "vocab_size", 260)
        model = whole(request.param, folder / "model")
    byte_tokenizer(folder / "model")
    settings = folder / "model/tokenizer_config.json"
    known = {**json.loads(settings.read_text()), "pad_token": "<unk>"}
    settings.write_text(json.dumps(known))
    recipe = {"model": str(folder / "model"), "task": "feature-extraction"}
    return model, lc.build(recipe, output=folder / "out").path


def test_texts_are_padded_and_put_in_lower_case_as_in_training(built: tuple[Any, Path]) -> None:
    model, path = built
    lowered = type(model).__name__ == "Siglip2Model"
    rows = [list(t.lower().encode() if lowered else t.encode())[:16] for t in TEXTS]
    words = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    ids = np.full((len(TEXTS), 16), PAD)
    for row, text in zip(ids, rows, strict=True):
        row[: len(text)] = [words[chr(b) if b != 32 else "Ġ"] for b in text]
    with torch.no_grad():
        wanted = model.get_text_features(input_ids=torch.from_numpy(ids)).pooler_output.numpy()
    with lc.load(path) as engine:
        found = engine.embed(TEXTS)
        assert engine.manifest["ranges"]["sequence"] == [16, 16]
        assert [*engine.inputs] == ["input_ids"]
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()
    assert np.abs(found[1] - found[3]).max() > TOLERANCE * np.abs(wanted).max()


def test_it_is_verified_and_timed(built: tuple[Any, Path]) -> None:
    _, path = built
    report = lc.verify(path).engines[0].report
    assert report.embedding == "sentence_embedding"
    assert [output.name for output in report.outputs] == ["last_hidden_state", "sentence_embedding"]
    cases = lc.bench(path, rounds=1)["cases"]
    assert [case["name"] for case in cases] == ["1x16", "32x16"]


@pytest.mark.parametrize("quantize", ["int8", {"bits": 4, "group": 32, "algorithm": "awq"}, "auto"])
def test_it_is_quantized_on_the_sample(
    quantize: Any, built: tuple[Any, Path], tmp_path: Path
) -> None:
    _, path = built
    recipe = {
        "model": str(path.parent / "model"),
        "task": "feature-extraction",
        "quantize": quantize,
        "normalize": True,
    }
    artifact = lc.build(recipe, output=tmp_path / "out")  # to its gates
    with lc.load(artifact.path) as engine:
        assert np.allclose(np.linalg.norm(engine.embed(TEXTS), axis=1), 1, atol=TOLERANCE)
