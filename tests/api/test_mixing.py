"""``quantize: auto`` on a small model, end to end."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import lepton_compile as lc
from lepton_compile.api.memory import MemoryCeiling
from lepton_compile.api.mixing import budget_of, chosen_bits
from lepton_compile.cli.report_view import report_parts
from lepton_compile.errors import RecipeError
from lepton_compile.export import resolve
from lepton_compile.export.export import export
from lepton_compile.pipeline.hessians import Hessians
from lepton_compile.recipe import load_recipe
from tests.small import bert, byte_tokenizer, llama, saved

LAYERS = 3
LOOSE, BINDING, STRICT = "+60%", "+1%", "+0.02%"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder whose layers matter, and a tokenizer that gives bytes numbers."""
    place = tmp_path_factory.mktemp("mixed")
    config = llama(vocab_size=260, num_hidden_layers=LAYERS, initializer_range=0.12)
    saved("LlamaForCausalLM", config, place / "llama")
    saved("BertModel", bert(vocab_size=260), place / "bert")
    for name in ("llama", "bert"):
        byte_tokenizer(place / name)
    saved("LlamaForCausalLM", llama(), place / "mute")
    return place


def _built(folder: Path, output: Path, gate: str, **more: Any) -> Any:
    """An artifact, its report as data beside it."""
    recipe: dict[str, Any] = {
        "model": str(folder / "llama"),
        "quantize": "auto",
        "shapes": {"sequence": 64},
        "gates": {"perplexity": gate},
        **more,
    }
    artifact = lc.build(recipe, output=output, check=False, verify=False)
    return artifact, json.loads((artifact.path / "report.json").read_text())


@pytest.fixture(scope="module")
def builds(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("built")
    gates = {"loose": LOOSE, "binding": BINDING, "strict": STRICT}
    return {name: _built(folder, place / name, gate) for name, gate in gates.items()}


def _at(report: Any, bits: str) -> int:
    return sum(kind[bits] for kind in report["choices"]["ort-cpu"]["kinds"])


def test_a_stricter_budget_has_more_weights_in_8_bits(builds: dict[str, Any]) -> None:
    loose, binding, strict = (builds[name][1] for name in ("loose", "binding", "strict"))
    assert _at(loose, "eight") == 0
    assert 0 < _at(binding, "four") < _at(loose, "four")
    assert _at(strict, "four") < _at(binding, "four")
    sizes = [report["choices"]["ort-cpu"]["bytes"] for report in (loose, binding, strict)]
    assert sizes == sorted(sizes)
    for report in (loose, binding, strict):
        choice = report["choices"]["ort-cpu"]
        assert 0 <= choice["measured"] <= choice["budget"]
        assert choice["measure"] == "Kullback-Leibler divergence"


def test_the_choice_is_shown_to_people(builds: dict[str, Any]) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    for part in report_parts(builds["binding"][1]):
        console.print(part)
    text = console.export_text()
    assert "Bits chosen for ort-cpu" in text
    assert "gate_proj + up_proj" in text
    assert "on the calibration text" in text


def test_stacks_have_one_format_and_are_fused(builds: dict[str, Any]) -> None:
    for artifact, report in builds.values():
        fired = {each["name"]: each["fired"] for each in report["passes"]}
        assert fired["packed-qkv"] == LAYERS
        assert fired["packed-gate-up"] == LAYERS
        (engine,) = artifact.manifest.engines
        assert engine["precision"] == "auto"


def test_the_same_build_chooses_the_same(
    builds: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    first, _ = builds["binding"]
    again, _ = _built(folder, tmp_path / "again", BINDING)
    assert again.manifest.as_dict() == first.manifest.as_dict()


def test_a_build_that_repeats_it_searches_nothing(
    builds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lepton_compile.api.building.chosen_bits", None)
    first, _ = builds["binding"]
    assert lc.rebuild(first).manifest == first.manifest


def test_what_the_lock_has_is_a_recipe_without_a_search(
    builds: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    first, _ = builds["binding"]
    chosen = first.manifest.lock["chosen"]["ort-cpu"]
    assert chosen["algorithm"] == "weighted"
    again, report = _built(folder, tmp_path / "again", BINDING, quantize=chosen)
    assert report["choices"] == {}
    weights = "engines/ort-cpu/weights.bin"
    assert again.manifest.files[weights] == first.manifest.files[weights]


def test_a_rule_of_the_recipe_stands(folder: Path, tmp_path: Path) -> None:
    rules = [{"match": "*.o_proj.weight", "bits": "none"}]
    quantize = {"algorithm": "auto", "embedding": "int8", "rules": rules}
    artifact, report = _built(folder, tmp_path / "ruled", LOOSE, quantize=quantize)
    chosen = artifact.manifest.lock["chosen"]["ort-cpu"]
    assert chosen["rules"][0] == {"match": "*.o_proj.weight", "bits": "none"}
    assert chosen["embedding"] == "int8"
    kinds = [kind["name"] for kind in report["choices"]["ort-cpu"]["kinds"]]
    assert not any("o_proj" in kind or "embed_tokens" in kind for kind in kinds)


def test_encoders_are_held_to_their_cosine(folder: Path, tmp_path: Path) -> None:
    recipe = {
        "model": str(folder / "bert"),
        "task": "feature-extraction",
        "quantize": "auto",
        "pooling": "mean",
        "shapes": {"sequence": 64},
    }
    artifact = lc.build(recipe, output=tmp_path / "bert")
    report = json.loads((artifact.path / "report.json").read_text())
    choice = report["choices"]["ort-cpu"]
    assert choice["measure"] == "1 - cosine"
    assert choice["measured"] <= choice["budget"] < 0.005
    assert report["verify"]["cosine"] >= 0.995
    assert artifact.manifest.demands["gates"]["ort-cpu"]["cosine"] == 0.995


def test_without_a_tokenizer_there_is_no_text(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="without a tokenizer") as caught:
        lc.build(model=str(folder / "mute"), quantize="auto", output=tmp_path / "out")
    assert caught.value.where == "--quantize (in Python: quantize=…)"
    assert caught.value.found == "auto"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "limit", "found"),
    [("folder", 1, "the ceiling is 1 bytes"), ("onnx", None, "without the PyTorch model")],
)
def test_without_the_fp32_model_nothing_can_be_measured(
    kind: str, limit: int | None, found: str
) -> None:
    recipe = load_recipe({"model": "./m", "quantize": "auto"})
    source, exported = SimpleNamespace(kind=kind), SimpleNamespace(parameters=1000)
    with pytest.raises(RecipeError, match="fp32 model") as caught:
        chosen_bits(recipe, None, source, exported, None, MemoryCeiling(limit), lambda *_: None)  # type: ignore[arg-type]
    assert found in (caught.value.found or "")
    assert "int8" in (caught.value.hint or "")


@pytest.mark.parametrize("target", ["trt-rtx", "trt", "ort-cuda"])
def test_other_targets_refuse_it(target: str, folder: Path) -> None:
    with pytest.raises(RecipeError, match="no passes for this precision") as caught:
        lc.build(model=str(folder / "llama"), target=target, quantize="auto")
    assert "int4" in caught.value.available
    assert "auto" not in caught.value.available


def test_a_plan_says_what_it_does_not_know(folder: Path) -> None:
    auto, eight = (lc.plan(model=str(folder / "llama"), quantize=q) for q in ("auto", "int8"))
    assert auto.files == eight.files
    assert any("8 for all" in note for note in auto.notes)


def test_a_plan_has_the_memory_of_what_runs_the_text(folder: Path) -> None:
    model, quantize = str(folder / "llama"), {"algorithm": "gptq", "bits": 4}
    auto, fitted, eight = (lc.plan(model=model, quantize=q) for q in ("auto", quantize, "int8"))
    source = resolve(model, folder)
    exported = export(source, "text-generation")
    matrices = Hessians(exported.model, list).most
    weighed = lc.plan(model=model, quantize={**quantize, "algorithm": "awq"})
    assert weighed.peak_memory_bytes > eight.peak_memory_bytes
    assert auto.peak_memory_bytes >= weighed.peak_memory_bytes
    assert fitted.peak_memory_bytes - weighed.peak_memory_bytes == matrices > 0


@pytest.mark.parametrize(
    ("gates", "task", "budget"),
    [
        ({}, "text-generation", 0.03922),
        ({"perplexity": "+10%"}, "text-generation", 0.09531),
        ({"perplexity": None}, "text-generation", 0.03922),
        ({"cosine": 0.99}, "feature-extraction", 0.01),
        ({}, "feature-extraction", 0.005),
        ({}, "text-classification", 0.02),
    ],
)
def test_the_gates_are_the_budget(gates: dict[str, Any], task: str, budget: float) -> None:
    recipe = load_recipe({"model": "./m", "quantize": "auto", "gates": gates})
    assert budget_of(recipe, task) == pytest.approx(budget, abs=1e-4)
