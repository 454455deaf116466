"""What is compared during a build, and that what is not says why."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import psutil
import pytest
import torch

import lepton_compile as lc
from lepton_compile.api import memory
from lepton_compile.api.comparing import room_beside
from lepton_compile.api.memory import MemoryCeiling
from lepton_compile.api.sample import check_feeds
from lepton_compile.api.verification import runnable
from lepton_compile.cli import main
from lepton_compile.errors import EngineError, PassError, SourceError
from lepton_compile.export import Source
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.reference import load_reference, streamed_parameters
from lepton_compile.export.source import resolve
from lepton_compile.recipe import load_recipe
from tests.passes.support import load, random
from tests.plugins.cpu_library import needs_library
from tests.small import bert, llama, made, saved

IDS = """main (int64[b, s] input_ids, int64[b, s] attention_mask) => (float[b, s, 40] y) {
  x = Gather (table, input_ids)
  t = Transpose <perm = [1, 0]> (w)
  p = MatMul (x, t)
  y = Identity (p)
}"""
NOISE = """main (float[n, 3, 32] pixels) => (float[n, 3, 40] y) {
  t = Transpose <perm = [1, 0]> (w)
  p = MatMul (pixels, t)
  y = Identity (p)
}"""
UNKNOWN = """main (int64[n, 32] steps, float[n, 32] x) => (float[n, 40] y) {
  c = Cast <to = 1> (steps)
  a = Add (x, c)
  t = Transpose <perm = [1, 0]> (w)
  p = MatMul (a, t)
  y = Identity (p)
}"""
ATTENDED = """main (float[n, s, 128] x) => (float[n, s, 128] y)
<float[n, s, 128] q, float[n, s, 128] v, float[n, s, 128] a>
{
  tq = Transpose <perm = [1, 0]> (queries)
  q = MatMul (x, tq)
  tv = Transpose <perm = [1, 0]> (values)
  v = MatMul (x, tv)
  a = Attention <q_num_heads = 2, kv_num_heads = 2, scale = 0.125> (q, x, v)
  to = Transpose <perm = [1, 0]> (last)
  y = MatMul (a, to)
}"""


def _file(tmp_path: Path, text: str) -> Path:
    weights = {"table": random(50, 32), "w": random(40, 32)}
    weights |= {name: random(128, 128) for name in ("queries", "values", "last")}
    model = load(text, {name: array for name, array in weights.items() if f"({name}" in text})
    path = tmp_path / "model.onnx"
    onnx.save(ir.serde.serialize_model(model), path)
    return path


def _built(model: Path, tmp_path: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """``compared`` of the one engine, and the remarks of the report."""
    built = lc.build(model=str(model), output=tmp_path / "out", **options)
    report = json.loads((built.path / "report.json").read_text())
    assert built.manifest.engines[0]["executed"] is (
        built.manifest.engines[0]["compared"]["engine"] is True
    )
    return dict(built.manifest.engines[0]["compared"]), report["remarks"]


@pytest.mark.parametrize(("text", "quantize"), [(IDS, "int8"), (NOISE, "int4")])
def test_an_imported_graph_is_checked_on_made_up_inputs(
    tmp_path: Path, text: str, quantize: str
) -> None:
    compared, remarks = _built(_file(tmp_path, text), tmp_path, quantize=quantize)
    assert compared == {"passes": True, "engine": "an ONNX file comes without the PyTorch model"}
    assert remarks == [
        "the engine for ort-cpu was not verified: an ONNX file comes without the PyTorch model"
    ]


def test_the_check_of_an_imported_graph_is_a_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lepton_passes.quant.weight_int8 as module

    rounded = module.quantize_int8

    def broken(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, scales = rounded(rows)
        return np.flip(values, 0).copy(), scales

    monkeypatch.setattr(module, "quantize_int8", broken)
    with pytest.raises(PassError, match="weight-int8 changed the numbers"):
        lc.build(model=str(_file(tmp_path, NOISE)), output=tmp_path / "out", quantize="int8")


def test_an_input_that_nothing_is_known_of_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path, UNKNOWN)
    compared, remarks = _built(path, tmp_path)
    assert "the input steps" in str(compared["passes"])
    assert len(remarks) == 2
    arguments = ["build", "--model", str(path), "-o", str(tmp_path / "again")]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "not compared: nothing is known of what the input steps" in captured.err
    assert "Note: passes were not compared" in captured.out


def test_an_output_without_a_type_has_the_one_that_follows(tmp_path: Path) -> None:
    path = _file(tmp_path, NOISE.replace("(float[n, 3, 40] y)", "(y)"))
    built = lc.build(model=str(path), output=tmp_path / "out")
    assert built.manifest.outputs == ({"name": "y", "dtype": "float32", "shape": ["n", 3, 40]},)


def test_an_output_that_is_no_tensor_is_named(tmp_path: Path) -> None:
    text = """main (float[n, 4] x) => (seq(float[n, 4]) y) {
      y = SequenceConstruct (x)
    }"""
    with pytest.raises(SourceError, match="no tensor of a known type and shape") as caught:
        lc.build(model=str(_file(tmp_path, text)), output=tmp_path / "out")
    assert str(caught.value.found).startswith("y: ")


def test_ids_stay_inside_the_table(tmp_path: Path) -> None:
    source = Source("model.onnx", "onnx", _file(tmp_path, IDS))
    feeds = check_feeds(source, import_onnx(source, None))
    assert feeds["input_ids"].shape == (2, 64)
    assert 0 <= feeds["input_ids"].min() <= feeds["input_ids"].max() < 50
    assert feeds["attention_mask"].sum(1).tolist() == [64, 48]
    assert check_feeds(source, import_onnx(source, None, 12))["input_ids"].shape == (2, 12)


@needs_library
def test_attention_of_an_encoder_is_seen_to_round(tmp_path: Path) -> None:
    """A few tokens are attended to in fp32: of a short sample the check would see nothing."""
    model = saved("BertModel", bert(hidden_size=128, num_attention_heads=2), tmp_path / "model")
    built = lc.build(model=model, quantize="int8", output=tmp_path / "out", verify=False)
    done = json.loads((built.path / "report.json").read_text())["passes"]
    (entry,) = (one for one in done if one["name"] == "lower-rounded-attention")
    assert entry["fired"] == 2
    assert entry["error"] > 1e-4


@needs_library
def test_attention_of_a_file_is_seen_to_round(tmp_path: Path) -> None:
    path = _file(tmp_path, ATTENDED)
    built = lc.build(model=path, quantize="int8", output=tmp_path / "out")
    done = json.loads((built.path / "report.json").read_text())["passes"]
    (entry,) = (one for one in done if one["name"] == "lower-rounded-attention")
    assert entry["fired"] == 1
    assert entry["error"] > 1e-4


def test_an_engine_that_does_not_run_here_is_never_called_executed(tmp_path: Path) -> None:
    saved("BertModel", bert(num_hidden_layers=1), tmp_path / "model")
    if runnable(["ort-cuda"])["ort-cuda"] == "":
        pytest.skip("there is a GPU")
    compared, remarks = _built(
        tmp_path / "model", tmp_path, task="feature-extraction", target="ort-cuda", check=False
    )
    assert compared["engine"] == runnable(["ort-cuda"])["ort-cuda"]
    assert len(remarks) == 2


def test_what_does_not_fit_below_the_ceiling_is_left_out_and_said(tmp_path: Path) -> None:
    saved("BertModel", bert(num_hidden_layers=1), tmp_path / "small")
    options: dict[str, Any] = {"task": "feature-extraction", "quantize": "int8"}
    lc.build(model=str(tmp_path / "small"), output=tmp_path / "warm", **options)
    config = bert(num_hidden_layers=1, vocab_size=1_200_000)
    large = made("BertModel", config).to(torch.bfloat16)
    large.save_pretrained(tmp_path / "large")
    del large
    held = psutil.Process().memory_info().rss
    compared, remarks = _built(
        tmp_path / "large", tmp_path, max_memory=held + (250 << 20), **options
    )
    for part in ("passes", "engine"):
        assert "the fp32 model needs about" in str(compared[part])
        assert "the ceiling is" in str(compared[part])
    assert len(remarks) == 2


def test_the_hint_of_the_ceiling_names_what_is_on() -> None:
    for flags, hint in (
        ([], "raise --max-memory"),
        (["--no-verify"], "raise --max-memory, or build with --no-verify, where"),
    ):
        watched = MemoryCeiling(1 << 20, flags).watch(lambda *step: None)
        with pytest.raises(EngineError) as caught:
            watched("writing", 0, 1)
        assert str(caught.value.hint).startswith(hint)
        assert "--no-check" not in str(caught.value.hint)


GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 GiB, 10 of them and 2 of swap free; what its control group is asked for."""
    now = SimpleNamespace(total=16 * GIB, available=10 * GIB)
    monkeypatch.setattr("psutil.virtual_memory", lambda: now)
    monkeypatch.setattr("psutil.swap_memory", lambda: SimpleNamespace(free=2 * GIB))
    monkeypatch.setattr(memory, "_resident", lambda: GIB)
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("limits", "room", "has"),
    [
        ({}, 12 * GIB, "17.18"),
        ({"memory.max": "max\n"}, 12 * GIB, "17.18"),
        ({"memory.max": f"{4 * GIB}\n"}, 3 * GIB, "4.29"),
        ({"memory/memory.limit_in_bytes": f"{4 * GIB}\n"}, 3 * GIB, "4.29"),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 12 * GIB, "17.18"),
    ],
)
def test_without_a_ceiling_there_is_what_the_machine_has(
    machine: Path, limits: dict[str, str], room: int, has: str
) -> None:
    """Or a container: what asks for more of it is killed, after minutes and without a word."""
    for name, text in limits.items():
        (machine / name).parent.mkdir(exist_ok=True)
        (machine / name).write_text(text)
    ceiling = MemoryCeiling(None)
    assert ceiling.lacks(room, mapped=100 * GIB) == "", "files make way"
    lacks = ceiling.lacks(room + 1, "the model")
    assert lacks.startswith("the model needs about")
    assert lacks.endswith(f"this machine or its container has {has} GB")


def test_files_count_below_a_ceiling(machine: Path) -> None:
    ceiling = MemoryCeiling(4 * GIB)
    assert ceiling.lacks(2 * GIB, mapped=GIB) == ""
    assert "the ceiling is 4.29 GB" in ceiling.lacks(2 * GIB, mapped=GIB + 1)


def test_what_has_no_room_on_this_machine_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved("BertModel", bert(num_hidden_layers=1), tmp_path / "model")
    monkeypatch.setattr(memory, "_free", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    compared, remarks = _built(tmp_path / "model", tmp_path, task="feature-extraction")
    assert "the disk for temporary files (TMPDIR) has less" in str(compared["passes"])
    assert "the fp32 model needs about" in str(compared["engine"])
    assert "this machine or its container has" in str(compared["engine"])
    assert len(remarks) == 2
    plan = lc.plan(model=str(tmp_path / "model"), task="feature-extraction")
    assert (plan.check, plan.verify) == (None, None)
    told = [note.partition(":")[0] for note in plan.notes]
    assert told == ["passes will not be compared", "engines will not be verified"]


def test_a_decoder_is_verified_a_layer_at_a_time_where_the_whole_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved("LlamaForCausalLM", llama(num_hidden_layers=4), tmp_path / "model")
    how: dict[str, Any] = {"model": str(tmp_path / "model"), "check": False}
    whole = lc.build(**how, output=tmp_path / "whole").report()["verify"]
    held = streamed_parameters(resolve(str(tmp_path / "model"), tmp_path), "text-generation")
    assert held is not None
    monkeypatch.setattr(memory, "_free", lambda: 4 * held)
    asked = []

    def loaded(*given: Any, **options: Any) -> Any:
        asked.append(options)
        return load_reference(*given, **options)

    monkeypatch.setattr("lepton_compile.export.reference.load_reference", loaded)
    assert lc.plan(**how).verify is not None
    streamed = lc.build(**how, output=tmp_path / "streamed").report()["verify"]
    assert asked == [{"streamed": True}]
    assert {**streamed, "seconds": 0} == {**whole, "seconds": 0}
    monkeypatch.setattr(memory, "_free", lambda: 4 * held - 1)
    (note,) = lc.plan(**how).notes
    assert "the fp32 model, a layer at a time, needs about" in note


def test_the_engine_has_to_have_room_beside_what_is_behind_the_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = made("LlamaForCausalLM", llama(num_hidden_layers=4))
    module.save_pretrained(tmp_path)
    exported: Any = SimpleNamespace(task="text-generation", parameters=module.num_parameters())
    recipe = load_recipe({"model": str(tmp_path), "quantize": "int8"})
    source = resolve(str(tmp_path), tmp_path)
    held = streamed_parameters(source, exported.task)
    monkeypatch.setattr(memory, "_resident", lambda: 0)
    engine = exported.parameters * 5 // 4
    behind = 4 * (99 * 64 + 2 * 128 * 99)  # the head, and scores of both
    assert 4 * held < behind + engine < 4 * exported.parameters  # type: ignore[operator]
    for limit, lacks in ((behind + engine, ""), (behind + engine - 1, "and the engine, needs")):
        found, why = room_beside(MemoryCeiling(limit), recipe, source, exported)
        assert found == held
        assert lacks in why
        assert bool(why) == bool(lacks)
