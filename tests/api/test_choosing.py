"""Builds whose kernels were chosen by what was measured: decided, recorded, and the same again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest

import lepton_compile as lc
from lepton_compile.api.choosing import known_tactics, tactics_for
from lepton_compile.cli import main
from lepton_compile.export import resolve
from lepton_compile.export.export import export
from lepton_compile.recipe import load_recipe
from lepton_compile.tactics.machine import this_machine
from lepton_compile.tactics.phases import wanted_of
from lepton_compile.tactics.store import Store, tactics_folder
from lepton_compile.tactics.table import Tactics
from lepton_passes.lowering.ort.choices import Layer
from lepton_plugins.linear.spec import ACTIVATIONS
from lepton_plugins.spec import CPU_DOMAIN
from lepton_plugins.toolchain.store import cache_folder
from tests.plugins.cpu_library import library, needs_library
from tests.small import llama, saved
from tests.tactics.measured import measured

pytestmark = needs_library

QKV = Layer(256, 512, 4, 32, decoder=True)
OUT = Layer(256, 256, 4, 32, decoder=True)
GATE_UP = Layer(256, 1024, 4, 32, ACTIVATIONS["silu"], gated=1, decoder=True)
DOWN = Layer(512, 256, 4, 32, decoder=True)
HEAD = Layer(256, 512, 4, 32, tied=True, decoder=True)
LAYERS = (QKV, OUT, GATE_UP, DOWN, HEAD)
IDS = [5, 17, 3, 42, 8]
ONE_PROMPT = {"batch": [1, 64], "sequence": [1, 64]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers large enough to be timed."""
    config = llama(vocab_size=512, hidden_size=256, intermediate_size=512, tie_word_embeddings=True)
    return saved("LlamaForCausalLM", config, tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of our own, with the kernels of the real one: compiling takes long."""
    library()
    kernels = cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache_folder().parent.mkdir(parents=True)
    cache_folder().symlink_to(kernels)
    return tactics_folder()


def _remember(*builtin: Layer) -> None:
    """As if this machine had been measured: onnxruntime is twice as fast for some layers."""
    machine = this_machine(library())
    store = Store(tactics_folder(), machine)
    wanted = wanted_of("latency", ONE_PROMPT, decoder=True)
    key = Tactics(machine, wanted, store)._key
    seconds = dict.fromkeys((1, 64), 0.0001)
    half = dict.fromkeys((1, 64), 5e-05)
    for layer in LAYERS:
        theirs = half if layer in builtin else seconds
        found = measured(seconds={"native": seconds, "nbits": theirs})
        store.add({key(layer): found})


def _built(model: Path, output: Path, **options: Any) -> Path:
    given = {"quantize": "int4", "verify": False, "check": False}
    return lc.build(model=str(model), output=output, **{**given, **options}).path


def _ops(artifact: Path) -> Counter[str]:
    path = artifact / "engines/ort-cpu/model.onnx"
    return Counter(n.op_type for n in onnx.load(path, load_external_data=False).graph.node)


def _engine(artifact: Path) -> dict[str, Any]:
    return dict(json.loads((artifact / "manifest.json").read_text())["engines"][0])


def _report(artifact: Path) -> dict[str, Any]:
    return dict(json.loads((artifact / "report.json").read_text()))


def _files(artifact: Path) -> dict[str, bytes]:
    paths = (p for p in artifact.rglob("*") if p.is_file() and not p.name.startswith("report."))
    return {p.relative_to(artifact).as_posix(): p.read_bytes() for p in paths}


def test_layers_of_both_kinds_in_one_engine(model: Path, tmp_path: Path) -> None:
    _remember(DOWN, HEAD)
    mixed = _built(model, tmp_path / "mixed", verify=True, check=True)
    ops = _ops(mixed)
    assert (ops["QuantizedLinear"], ops["MatMulNBits"]) == (6, 3)
    assert (ops["QuantizedEmbedding"], ops["GatherBlockQuantized"]) == (0, 1)
    assert _engine(mixed)["executed"] is True
    logits = []
    for path in (mixed, _built(model, tmp_path / "theirs", kernels="builtin")):
        with lc.load(path) as opened:
            logits.append(opened.logits(IDS).ravel())
    ours, theirs = logits
    assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.9995


def test_what_was_chosen_is_taken_by_a_build_that_repeats_it(
    model: Path, tmp_path: Path, cache: Path
) -> None:
    """Though nothing is known of the machine any more, or something else."""
    _remember(DOWN)
    built = _built(model, tmp_path / "out")
    for path in cache.glob("*.json"):
        path.unlink()
    _remember(QKV)
    lc.rebuild(built, output=tmp_path / "again")
    assert _files(tmp_path / "again") == _files(built)
    assert _files(_built(model, tmp_path / "other")) != _files(built)


def test_what_was_chosen_is_recorded(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _remember(DOWN)
    artifact = _built(model, tmp_path / "out")
    entry = _engine(artifact)["tactics"]
    kernels = {layer["columns"]: layer["kernel"] for layer in entry["layers"]}
    assert (len(entry["layers"]), kernels) == (5, {256: "native", 512: "nbits"})
    assert entry["processor"] == this_machine(None).processor
    report = _report(artifact)
    (timed,) = report["tactics"]
    assert timed["target"] == "ort-cpu"
    assert [layer["kept"] for layer in timed["layers"]] == [True] * 5
    why = "measured: MatMulNBits is 2.0 times as fast here"
    refused = next(p for p in report["passes"] if p["name"] == "lower-native-linear")["refusals"]
    assert {refusal["reason"] for refusal in refused} == {why}
    page = (artifact / "report.html").read_text()
    assert "512 to 256, 4 bits by 32, decoder" in page
    assert f"taken: {why}" in page
    capsys.readouterr()
    assert main(["inspect", str(artifact)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Kernels for latency, on" in shown
    assert "MatMulNBits is 2.0" in shown


def test_the_same_table_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    _remember(DOWN, OUT)
    first, second = (_files(_built(model, tmp_path / name)) for name in ("first", "second"))
    assert first == second
    assert first != _files(_built(model, tmp_path / "default", tactics="default"))


@pytest.mark.parametrize("options", [{"tactics": "default"}, {"kernels": "native"}])
def test_a_fixed_rule_asks_no_machine(
    model: Path, tmp_path: Path, cache: Path, options: dict[str, Any]
) -> None:
    _remember(DOWN, HEAD)
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    artifact = _built(model, tmp_path / "out", **options)
    assert "tactics" not in _engine(artifact)
    assert _report(artifact)["tactics"] == []
    assert _ops(artifact)["MatMulNBits"] == 0
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before


def test_the_command_line_says_so_too(model: Path, tmp_path: Path) -> None:
    _remember(DOWN)
    arguments = ["--model", str(model), "--quantize", "int4"]
    arguments += ["--no-check", "--no-verify", "-q"]
    for how in ("default", "measure"):
        output = ["-o", str(tmp_path / how), "--tactics", how]
        assert main(["build", *arguments, *output]) == 0
    assert _ops(tmp_path / "default")["MatMulNBits"] == 0
    assert _ops(tmp_path / "measure")["MatMulNBits"] == 2
    lock = json.loads((tmp_path / "default/manifest.json").read_text())["lock"]
    assert lock["recipe"]["tactics"] == "default"
    assert main(["build", *arguments, "--tactics", "fast"]) == 2


def test_a_plan_goes_by_what_builds_here_have_measured(model: Path) -> None:
    given = {"model": str(model), "quantize": "int4"}
    plan = lc.plan(given)
    assert plan.engines[0].ops[f"{CPU_DOMAIN}::QuantizedLinear"] == 9
    assert any("5 kinds of layers: none was ever timed" in note for note in plan.notes)
    _remember(DOWN, HEAD)
    plan = lc.plan(given)
    assert plan.engines[0].ops["com.microsoft::MatMulNBits"] == 3
    assert not any("timed" in note for note in plan.notes)
    plan = lc.plan(given, tactics="default")
    assert plan.engines[0].ops[f"{CPU_DOMAIN}::QuantizedLinear"] == 9


def test_a_machine_is_really_measured(model: Path, tmp_path: Path, cache: Path) -> None:
    """Whatever comes out: it is recorded, it runs, and it is exact."""
    artifact = _built(model, tmp_path / "out", verify=True, check=True)
    entry = _engine(artifact)["tactics"]
    assert {each["kernel"] for each in entry["layers"]} <= {"native", "nbits"}
    assert entry["rows"] == [1, 64]
    (timed,) = _report(artifact)["tactics"]
    assert len(timed["layers"]) == 5
    for layer in timed["layers"]:
        assert layer["failed"] == []
        for candidate in layer["candidates"]:
            assert {*candidate["seconds"]} == {"1", "64"}
            assert 0 < candidate["error"] < 0.05
    kept = [layer for layer in timed["layers"] if "busy" not in layer["why"]]
    files = list(cache.glob("*.json"))
    assert len(files) == bool(kept)
    for file in files:
        assert len(json.loads(file.read_text())["layers"]) == len(kept)


def test_there_must_be_room_and_quiet(model: Path) -> None:
    recipe = load_recipe({"model": str(model), "quantize": "int4", "max_memory": 1 << 20})
    source = resolve(recipe.model, recipe.base, False)
    exported = export(source, "text-generation", length=64)
    made = tactics_for(recipe, library(), source, exported, lambda *_: None)
    source.start_digests()
    why = made["ort-cpu"].why_not()
    assert source._digests is not None
    assert source._digests.done()
    assert why.startswith("timing kernels needs about 0.20 GB beside what is held")
    roomy = psutil.Process().memory_info().rss + (1 << 30)
    recipe = load_recipe({"model": str(model), "quantize": "int4", "max_memory": roomy})
    made = tactics_for(recipe, library(), source, exported, lambda *_: None)
    assert made["ort-cpu"].why_not() == ""


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, True),
        ({"tactics": "default"}, False),
        ({"kernels": "native"}, False),
        ({"kernels": "builtin"}, False),
        ({"quantize": "none"}, False),
    ],
)
def test_who_is_measured(model: Path, given: dict[str, Any], asked: bool) -> None:
    recipe = load_recipe({"model": str(model), "quantize": "int4", **given})
    source = resolve(recipe.model, recipe.base, False)
    exported = export(source, "text-generation", length=64)
    assert (known_tactics(recipe, "ort-cpu", exported) is not None) == asked
    assert known_tactics(recipe, "ort-cuda", exported) is None
    assert tactics_for(recipe, None, source, exported, lambda *_: None) == {}
