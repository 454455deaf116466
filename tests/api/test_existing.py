"""Calls from Python about an artifact that exists: verified, and measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lepton_compile as lc
from lepton_compile.api import verifying
from lepton_compile.api.verification import verify_engines
from lepton_compile.errors import ArtifactError, UsageError
from tests.small import bert, saved


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> lc.Artifact:
    folder = tmp_path_factory.mktemp("bert")
    model = saved("BertModel", bert(), folder / "model")
    recipe = {"model": str(model), "task": "feature-extraction"}
    return lc.build(recipe, output=folder / "out", check=False, verify=False)


def test_verify_gives_what_the_command_shows(artifact: lc.Artifact) -> None:
    found = lc.verify(artifact, tokens=40)
    (engine,) = found.engines
    assert engine.target == "ort-cpu"
    assert all(gate.passed for gate in engine.gates)
    assert {gate.name for gate in engine.gates} >= {"not_finite", "cosine"}
    data = json.loads(json.dumps(found.as_dict()))
    assert data["engines"][0]["outputs"] == data["outputs"]


def test_a_missed_gate_brings_the_numbers(artifact: lc.Artifact) -> None:
    with pytest.raises(lc.GateError, match="missed") as caught:
        lc.verify(artifact, gates={"max_error": 0, "cosine": None}, target="ort-cpu")
    gates = (caught.value.report or {})["gates"]
    assert isinstance(gates, list)
    assert {gate["name"]: gate["passed"] for gate in gates} == {
        "not_finite": True,
        "max_error": False,
    }


def test_where_another_model_is_named_it_is_told(artifact: lc.Artifact, tmp_path: Path) -> None:
    """More bits would not make one model of two."""
    other = saved("BertModel", bert(hidden_act="relu"), tmp_path / "other")
    with pytest.raises(lc.GateError, match="missed") as caught:
        lc.verify(artifact, tokens=40, model=other)
    assert "is not what was built from (another config.json" in (caught.value.hint or "")
    same = Path(artifact.manifest.model["source"])
    with pytest.raises(lc.GateError) as caught:
        lc.verify(artifact, tokens=40, model=same, gates={"max_error": 0})
    assert "quantize:" in (caught.value.hint or "")


@pytest.mark.parametrize(("gate", "why"), [("perplexity", "generation"), ("argmax", "no scores")])
def test_a_gate_of_another_task_is_told_before_anything_is_run(
    artifact: lc.Artifact, monkeypatch: pytest.MonkeyPatch, gate: str, why: str
) -> None:
    monkeypatch.setattr(verifying, "origin_of", None)  # nothing comes as far
    with pytest.raises(lc.LeptonError, match=f"changes nothing here: .*{why}") as caught:
        lc.verify(artifact, gates={gate: 0.1})
    assert (caught.value.exit_code, caught.value.where) == (2, f"gates.{gate}")
    assert caught.value.found == "0.1, for feature-extraction"


def test_a_gate_of_another_task_that_is_dropped_is_none(artifact: lc.Artifact) -> None:
    assert lc.verify(artifact, tokens=40, gates={"perplexity": None}).engines


def test_a_text_of_ones_own(artifact: lc.Artifact, tmp_path: Path) -> None:
    with pytest.raises(lc.LeptonError, match="cannot be read") as caught:
        lc.verify(artifact, text=tmp_path / "none.txt")
    assert caught.value.where == "text"


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": 0},
        {"threads": "2"},
        {"gates": {"speed": 1}},
        {"gates": [1]},
        {"target": ["ort-gpu"]},
        {"target": []},
        {"target": 7},
        {"target": ["ort-cpu", 7]},
        {"model": 7},
        {"trust_remote_code": "no"},
        {"progress": print},
    ],
)
def test_arguments_of_another_type_are_told(artifact: lc.Artifact, wrong: Any) -> None:
    with pytest.raises(lc.LeptonError) as caught:
        lc.verify(artifact, **wrong)
    assert caught.value.exit_code == 2


def test_how_much_is_read_and_with_what(
    artifact: lc.Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def spied(*args: Any, **options: Any) -> Any:
        seen.update(options, tokens=args[3].tokens)
        return verify_engines(*args, **options)

    monkeypatch.setattr(verifying, "verify_engines", spied)
    lc.verify(artifact, tokens=33, threads=1)
    assert (seen["tokens"], seen["threads"]) == (33, 1)
    lc.verify(artifact)
    assert (seen["tokens"], seen["threads"]) == ((artifact.manifest.demands or {})["tokens"], None)


def test_an_engine_that_is_named_twice_is_compared_once(artifact: lc.Artifact) -> None:
    (engine,) = lc.verify(artifact, tokens=40, target=["ort-cpu", "ort-cpu"]).engines
    assert engine.target == "ort-cpu"


@pytest.mark.parametrize(
    ("demands", "kind", "said"),
    [
        ({"gates": None}, None, ""),
        ({"gates": {"ort-cpu": {"speed": 1}}}, ArtifactError, "speed"),
        ({"text": {"path": "/dev/zero", "sha256": "0"}}, UsageError, "no such file"),
    ],
)
def test_demands_that_somebody_edited(
    artifact: lc.Artifact, tmp_path: Path, demands: Any, kind: Any, said: str
) -> None:
    """None is passed over, and no device is read that never ends."""
    copy = Path(shutil.copytree(artifact, tmp_path / "copy"))
    (copy / "manifest.json").write_text(replace(artifact.manifest, demands=demands).to_json())
    if kind is None:
        assert all(gate.passed for gate in lc.verify(copy, tokens=40).engines[0].gates)
        return
    with pytest.raises(kind) as caught:
        lc.verify(copy)
    assert said in (caught.value.found or "")


def test_a_text_is_found_again_beside_its_recipe(
    artifact: lc.Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.txt").write_text("Some words to compare an engine on, and some more.")
    recipe = tmp_path / "r.yaml"
    source = artifact.manifest.model["source"]
    recipe.write_text(
        f"model: {source}\ntask: feature-extraction\nverify: {{text: text.txt, tokens: 20}}\n"
    )
    built = lc.build(recipe, output=tmp_path / "out", check=False, verify=False)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert lc.verify(built).engines


def test_bench_measures_and_keeps_it(
    artifact: lc.Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lc.bench(artifact, eager=False, rounds=1)
    assert [case["name"] for case in data["cases"]] == ["1x16", "1x64", "32x64"]
    assert artifact.report()["bench"]["cases"] == data["cases"]
    assert data["eager_left_out"]
    beside = lc.bench(artifact, rounds=1)
    assert beside["eager_left_out"] is None
    assert beside["cases"][0]["eager_ms"]["runs"]
    monkeypatch.setattr(verifying, "room_to_verify", lambda *_: (0, "it has no room"))
    assert lc.bench(artifact, rounds=1)["eager_left_out"]
    with pytest.raises(lc.LeptonError) as caught:
        lc.bench(artifact, rounds=0)
    assert caught.value.exit_code == 2
