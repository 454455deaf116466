"""onnxruntime-genai on decoders with states: the same greedy tokens as the artifact's loader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.serving import export_genai
from tests.serving.writing import PROMPTS, written_by_genai, written_by_loader

pytest.importorskip("torch")

from tests.export.harness import save
from tests.export.hybrids import endless

COUNT = 16

# Convolutions alone, those with linear attention, attention beside them in each layer, or nowhere.
NAMES = ["lfm2", "qwen3.5", "falcon-h1", "mamba2"]


@pytest.fixture(scope="module", params=NAMES)
def hybrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    import lepton_compile as lc

    folder = tmp_path_factory.mktemp(request.param)
    config = endless(request.param)()
    # As it is, each token is followed by itself. The server ends at the padding.
    config.initializer_range, config.tie_word_embeddings = 0.2, False
    config.pad_token_id = None
    save(lambda: config, "text-generation", folder / "model")
    options = {"tactics": "default", "check": False, "verify": False}
    return lc.build(model=str(folder / "model"), output=folder / "artifact", **options)


@pytest.mark.parametrize("last", [False, True])
def test_the_same_tokens(hybrid: Artifact, tmp_path: Path, last: bool) -> None:
    folder = export_genai(hybrid.path, tmp_path / "out", last_logits_only=last)
    for prompt in PROMPTS:
        found = written_by_genai(folder, [prompt], COUNT)
        assert found == written_by_loader(hybrid.path, [prompt], COUNT)
        assert len(set(found[0])) > 3, "a sequence that could tell two models apart"


def test_the_same_tokens_in_a_batch_of_one_length(hybrid: Artifact, tmp_path: Path) -> None:
    folder, rows = export_genai(hybrid.path, tmp_path / "out"), [PROMPTS[0], [7, 3, 90, 41]]
    assert written_by_genai(folder, rows, COUNT) == written_by_loader(hybrid.path, rows, COUNT)


def test_more_text_goes_on_from_the_states(hybrid: Artifact, tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    model = genai.Model(str(export_genai(hybrid.path, tmp_path / "out")))
    text = [token for prompt in PROMPTS for token in prompt]
    parameters = genai.GeneratorParams(model)
    length = len(text) + COUNT
    parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
    generator = genai.Generator(model, parameters)
    for prompt in PROMPTS:
        generator.append_tokens(np.array(prompt, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    found = [int(token) for token in generator.get_sequence(0)][len(text) :]
    assert [found] == written_by_loader(hybrid.path, [text], COUNT)


def test_a_second_generator_begins_with_empty_states(hybrid: Artifact, tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    model = genai.Model(str(export_genai(hybrid.path, tmp_path / "out")))
    found = []
    for _ in range(2):
        parameters = genai.GeneratorParams(model)
        parameters.set_search_options(max_length=12, min_length=12, do_sample=False)
        generator = genai.Generator(model, parameters)
        generator.append_tokens(np.array(PROMPTS[0], np.int32))
        while not generator.is_done():
            generator.generate_next_token()
        found.append([int(token) for token in generator.get_sequence(0)])
    assert found[0] == found[1]


def test_states_are_named_by_kind(hybrid: Artifact, tmp_path: Path) -> None:
    folder = export_genai(hybrid.path, tmp_path / "out")
    decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    kept = {name for name in decoder["inputs"] if "conv" in name or "recurrent" in name}
    if hybrid.manifest.model["model_type"] == "lfm2":
        assert kept == {"past_conv_names"}
        assert decoder["layer_types"] == ["conv", "full_attention", "conv"]
        assert decoder["num_hidden_layers"] == 3
    else:
        assert kept == {"past_conv_names", "past_recurrent_names"}
        assert "layer_types" not in decoder
