"""A build from a folder to an artifact that runs, and what a failed one leaves behind."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import lepton_compile as lc
from lepton_compile.api.demands import ways_out
from lepton_compile.api.estimates import KERNEL_SOURCE
from lepton_compile.errors import ArtifactError, EngineError, GateError, RecipeError
from lepton_compile.numerics.gates import GateCheck, enforce
from lepton_compile.recipe import load_recipe
from tests.small import bert, llama, saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("LlamaForCausalLM", llama(), tmp_path_factory.mktemp("llama"))


def _left(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_a_build_runs_and_equals_pytorch(folder: Path, tmp_path: Path) -> None:
    artifact = lc.build(model=str(folder), output=tmp_path / "out")
    assert artifact.manifest.engines[0]["executed"] is True
    report = artifact.report()
    assert report["verify"]["tokens"] > 0
    assert {gate["name"]: gate["passed"] for gate in report["gates"]}["max_error"] is True
    ids = [5, 17, 3, 42, 8]
    reference = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = reference(torch.tensor([ids])).logits.numpy()
        greedy = reference.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)
    with lc.load(artifact.path) as model:
        np.testing.assert_allclose(model.logits(ids), expected, atol=1e-4)
        assert list(model.generate(ids, max_new_tokens=12).tokens) == greedy[0, 5:].tolist()
    assert _left(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"position_ids": True, "target": "trt-rtx"}, RecipeError),
        ({"max_memory": 1 << 20}, EngineError),
    ],
    ids=["position-ids", "memory"],
)
def test_a_failed_build_leaves_nothing(
    folder: Path, tmp_path: Path, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        lc.build(model=str(folder), output=tmp_path / "out", **options)
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    "options",
    [
        {"passes": {"expect": {"attention": 7}}, "check": False},
        {"quantize": "int8", "gates": {"max_error": 1e-9}},
    ],
    ids=["expect", "gate"],
)
def test_a_missed_demand_leaves_its_evidence_until_a_build_succeeds(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(GateError) as caught:
        lc.build(model=str(folder), output=tmp_path / "out", **options)
    assert _left(tmp_path) == ["out.failed.html", "out.failed.json"]
    assert str(tmp_path / "out.failed.html") in str(caught.value.hint)
    report = json.loads((tmp_path / "out.failed.json").read_text())
    assert report == caught.value.as_dict()["report"]
    assert report["failure"]["found"] == caught.value.found
    missed_in = "verify" if "gates" in options else "passes"
    assert report["stages"][-1]["name"] == missed_in
    assert next(p for p in report["passes"] if p["counts_as"] == "attention")["fired"] == 2
    if "gates" in options:
        assert report["verify"]["outputs"][0]["max_abs"] > 0
        assert [g["passed"] for g in report["gates"] if g["name"] == "max_error"] == [False]
    page = (tmp_path / "out.failed.html").read_text()
    assert f"No artifact: {caught.value.message}" in page
    lc.build(model=str(folder), output=tmp_path / "out", check=False, verify=False)
    assert _left(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("quantize", "target", "way"),
    [
        ("int4", ["ort-cpu"], "auto chooses bits by the gates, {algorithm: awq, bits: 4, embedd"),
        ("int4", ["ort-cpu", "ort-cuda"], "{algorithm: awq, bits: 4, embedding: int8} loses less"),
        ("int8", ["ort-cpu"], "choose a higher precision"),
        ({"algorithm": "awq", "bits": 4}, ["ort-cpu"], "choose a higher precision"),
    ],
)
def test_who_misses_a_gate_is_told_what_loses_less(
    quantize: Any, target: list[str], way: str
) -> None:
    recipe = load_recipe({"model": "-", "quantize": quantize, "target": target})
    missed = GateCheck("perplexity", 0.3, 0.06, passed=False)
    with pytest.raises(GateError) as caught:
        enforce([missed], ways_out(recipe))
    assert (caught.value.hint or "").startswith(way)
    for word in ("auto", "int8", {"algorithm": "awq", "bits": 4, "embedding": "int8"}):
        load_recipe({"model": "-", "quantize": word})  # what is named is a recipe


def test_the_evidence_stands_in_a_folder_that_the_build_had_made(
    folder: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"check": False, "passes": {"expect": {"attention": 7}}}
    with pytest.raises(GateError):
        lc.build(model=str(folder), output=tmp_path / "a/b/out", **options)
    assert _left(tmp_path / "a/b") == ["out.failed.html", "out.failed.json"]


def test_counts_are_expected_of_each_target_that_has_the_pass(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": ["ort-cpu", "ort-cuda"], "check": False, "verify": False}
    expect = {"attention": 2, "lower-half-precision": 3, "legal-ort-cpu": 0}
    with pytest.raises(GateError, match="lower-half-precision: expected 3") as caught:
        lc.build(model=str(folder), output=tmp_path / "out", passes={"expect": expect}, **options)
    assert "attention" not in str(caught.value.found)
    assert caught.value.report is not None
    assert {p["target"] for p in caught.value.report["passes"]} == {"ort-cpu", "ort-cuda"}
    with pytest.raises(GateError, match="weight-int8: expected 4, fired 0"):
        lc.build(
            model=str(folder),
            output=tmp_path / "out",
            passes={"expect": {"weight-int8": 4}},
            **options,
        )


def test_counts_of_a_target_that_an_override_drops_are_not_asked_for(
    folder: Path, tmp_path: Path
) -> None:
    expect = {"lower-half-precision": 1, "attention": 2}
    file = {"model": str(folder), "target": "ort-cuda", "passes": {"expect": expect}}
    options: dict[str, Any] = {"target": "ort-cpu", "check": False, "verify": False}
    lc.build(file, output=tmp_path / "out", **options)
    expect["attention"] = 3
    with pytest.raises(GateError, match="attention: expected 3") as caught:
        lc.build(file, output=tmp_path / "no", **options)
    assert "lower-half-precision: expected" not in str(caught.value.found)


def test_each_target_may_have_its_own_precision(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "target": ["ort-cpu", "ort-cuda"],
        "quantize": "int8",
        "per_target": {"ort-cuda": {"quantize": "fp16"}},
    }
    planned = lc.plan(model=str(folder), **options)
    built = lc.build(model=str(folder), output=tmp_path / "out", verify=False, **options)
    wanted = {"ort-cpu": "int8", "ort-cuda": "fp16"}
    assert {e["target"]: e["precision"] for e in built.manifest.engines} == wanted
    assert {e.target: e.precision for e in planned.engines} == wanted
    report = json.loads((built.path / "report.json").read_text())
    fired = {(p["target"], p["name"]) for p in report["passes"] if p["fired"]}
    assert ("ort-cpu", "weight-int8") in fired
    assert ("ort-cuda", "weight-int8") not in fired


def test_engines_of_onnxruntime_share_equal_weights(folder: Path, tmp_path: Path) -> None:
    # Our own kernels want the integers of the CPU in another order.
    options: dict[str, Any] = {"quantize": "int4", "kernels": "builtin"}
    options |= {"check": False, "verify": False}
    alone = lc.build(
        model=str(folder), target="ort-cuda", output=tmp_path / "alone", **options
    ).path
    both = lc.build(
        model=str(folder), target=["ort-cpu", "ort-cuda"], output=tmp_path / "both", **options
    )
    engines = {e["target"]: e for e in both.manifest.engines}
    place = both.path / "engines/ort"
    assert _left(place) == ["ort-cpu.bin", "ort-cpu.onnx", "ort-cuda.bin", "ort-cuda.onnx"]
    assert engines["ort-cpu"]["files"] == ["engines/ort/ort-cpu.bin", "engines/ort/ort-cpu.onnx"]
    assert engines["ort-cuda"]["files"] == [
        f"engines/ort/{name}" for name in _left(place) if name != "ort-cpu.onnx"
    ]
    whole = (alone / "engines/ort-cuda/weights.bin").stat().st_size
    # The packed integers are the CPU's; scales and what is not quantized are halves here.
    assert (place / "ort-cuda.bin").stat().st_size < 0.6 * whole
    shared, own = (
        _tensors(path) for path in (place / "ort-cuda.onnx", alone / "engines/ort-cuda/model.onnx")
    )
    assert shared == own
    with lc.load(both.path) as model:
        assert model.target == "ort-cpu"
        assert len(model.generate([5, 17, 3], max_new_tokens=4).tokens) == 4


def _tensors(path: Path) -> dict[str, bytes]:
    """Bytes of each initializer of an ONNX file, wherever they lie."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    return {each.name: numpy_helper.to_array(each).tobytes() for each in graph.initializer}


def test_what_is_left_out_says_so(folder: Path, tmp_path: Path) -> None:
    built = lc.build(model=str(folder), output=tmp_path / "out", verify=False)
    (engine,) = built.manifest.engines
    assert engine["compared"] == {"passes": True, "engine": "left out as asked"}
    assert engine["executed"] is False
    report = json.loads((built.path / "report.json").read_text())
    assert report["remarks"] == ["the engine for ort-cpu was not verified: left out as asked"]


def test_the_section_verify_is_not_the_switch(folder: Path, tmp_path: Path) -> None:
    artifact = lc.build(model=folder, output=tmp_path / "out", verify={"tokens": 7}, check=False)
    assert artifact.manifest.demands is not None
    assert artifact.manifest.demands["tokens"] == 7
    assert artifact.manifest.engines[0]["executed"] is True
    recipe = load_recipe({"model": folder, "verify": {"enabled": False}})
    assert lc.plan(recipe).verify is None
    assert lc.plan({"model": folder, "verify": False}).verify is None
    assert lc.plan(recipe, verify={}).verify is not None


def test_an_existing_output_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="exists"):
        lc.build(model=str(folder), output=tmp_path / "out", verify=False)


def test_builds_of_several_threads_take_turns(folder: Path, tmp_path: Path) -> None:
    """Traced at once, they took each other's modes of torch, and failed or were captured worse."""
    encoder = saved("BertForSequenceClassification", bert(), tmp_path / "bert")
    options: dict[str, Any] = {"check": False, "verify": False}
    jobs = {f"{n}": model for n, model in enumerate([folder, encoder, folder])}
    with ThreadPoolExecutor(len(jobs)) as pool:
        built = [
            pool.submit(lc.build, model=str(model), output=tmp_path / name, **options)
            for name, model in jobs.items()
        ]
    for job in built:
        report = json.loads((job.result().path / "report.json").read_text())
        assert report["capture"]["how"] == "stamped"


def test_a_plan_predicts_each_file_of_an_engine(folder: Path, tmp_path: Path) -> None:
    plan = lc.plan(model=str(folder), quantize="int4")
    built = lc.build(
        model=str(folder), quantize="int4", output=tmp_path / "out", check=False, verify=False
    )
    files = (built.path / "engines/ort-cpu").iterdir()
    actual = {f"engines/ort-cpu/{file.name}": file.stat().st_size for file in files}
    assert plan.files == pytest.approx(actual, rel=0.1)


def test_a_plan_needs_the_configuration_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    shutil.copy(folder / "config.json", tmp_path / "bare")
    options: dict[str, Any] = {"target": ["ort-cpu", "ort-cuda"], "quantize": "int8"}
    bare = lc.plan(model=str(tmp_path / "bare"), **options)
    whole = lc.plan(model=str(folder), output=tmp_path / "there", check=False, **options)
    assert [e.target for e in bare.engines] == ["ort-cpu", "ort-cuda"]
    assert bare.engines == whole.engines
    assert bare.files["engines/ort/ort-cuda.bin"] > 0
    assert bare.check is not None
    assert bare.verify is not None
    assert whole.check is None
    assert whole.output == str(tmp_path / "there")
    gptq = {"algorithm": "gptq", "bits": 4}
    fitted = lc.plan(model=str(tmp_path / "bare"), quantize=gptq)
    nearest = lc.plan(model=str(tmp_path / "bare"), quantize="int4")
    assert fitted.files == nearest.files
    assert "without a tokenizer" in fitted.notes[-1]
    assert _left(tmp_path) == ["bare"]


@pytest.mark.parametrize("target", ["ort-cuda", "trt-rtx"])
def test_a_plan_for_a_gpu_of_a_model_with_few_labels(tmp_path: Path, target: str) -> None:
    """Its bias is as small as an epsilon, and the lowering looks whether it is one."""
    config = bert(num_labels=2)
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(tmp_path)
    plan = lc.plan(model=str(tmp_path), target=target, quantize="fp16")
    assert plan.task == "text-classification"
    assert [engine.missing for engine in plan.engines] == [[]]


def test_a_plan_of_a_tensorrt_engine_names_its_file(folder: Path) -> None:
    plan = lc.plan(model=str(folder), target="trt-rtx", quantize="int4", shapes={"sequence": 64})
    assert list(plan.files) == ["engines/trt-rtx/model.plan"]
    assert plan.engines[0].precision == "int4"
    assert plan.peak_memory_bytes > plan.files["engines/trt-rtx/model.plan"]


def test_a_plan_counts_the_kernels_of_each_profile(folder: Path) -> None:
    named: dict[str, Any] = {"model": str(folder), "target": "trt-rtx"}
    forms: tuple[dict[str, Any], ...] = (
        {"shapes": {"sequence": 64}},
        {"shapes": {"sequence": 64}, "profiles": "joint"},
        {"shapes": {"cache": [32, 64]}, "profiles": "joint"},
    )
    split, joint, several = (
        lc.plan(**named, **form).files["engines/trt-rtx/model.plan"] for form in forms
    )
    assert split - joint == several - joint == KERNEL_SOURCE
