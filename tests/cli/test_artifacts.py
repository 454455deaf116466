"""The commands on real artifacts of small random models."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compile.cli import main
from lepton_compile.cli.output import bytes_text
from lepton_compile.export import resolve
from lepton_compile.export.reference import load_reference, streamed_parameters
from tests.cli.onnx_files import few_positions_model
from tests.small import byte_tokenizer, llama, saved

Capture = pytest.CaptureFixture[str]


def answer(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    """The one JSON document that a command writes."""
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_inspect_an_artifact(encoder: Path, capsys: Capture) -> None:
    found = answer(capsys, "inspect", str(encoder))
    assert set(found["files"].values()) == {"intact"}
    assert found["manifest"]["task"] == "feature-extraction"
    assert found["engines"]["ort-cpu"]["ops"]
    assert found["report"]["stages"][0]["name"] == "resolve"


def inspected(
    artifact: Path, columns: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What ``inspect`` shows on a terminal, none of whose lines is longer than that."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(artifact.parent)
    assert main(["inspect", artifact.name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    return lines


def test_tables_of_an_artifact_fit_eighty_columns(
    decoder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = inspected(decoder, 80, capsys, monkeypatch)
    assert any("past_key_values.{0..1}.key" in line for line in lines)
    assert any("logits_to_keep" in line and "optional: 0" in line for line in lines)
    assert "Layers: 2, counted by the numbers in names" in lines


def test_a_narrow_terminal_shows_all_of_a_file(
    encoder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line.strip() for line in inspected(encoder, 40, capsys, monkeypatch)]
    entries = json.loads((encoder / "manifest.json").read_text("utf-8"))["files"]
    for name, entry in entries.items():
        at = lines.index(name)
        size, digest, state = lines[at + 1 : at + 4]
        assert size == f"size: {bytes_text(entry['size'])}"
        assert digest == f"sha256: {entry['sha256'][:12]}"
        assert state == "state: intact"


def test_a_damaged_file_is_shown_and_fails(encoder: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(encoder, copy)
    with (copy / "loader.py").open("r+b") as file:
        file.write(b"X")
    found = answer(capsys, "inspect", str(copy), code=1)
    assert found["files"]["loader.py"] == "damaged: another digest"


def test_a_damaged_artifact_does_not_run(encoder: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(encoder, copy)
    (copy / "engines/ort-cpu/model.onnx").unlink()
    found = answer(capsys, "run", str(copy), "--text", "x", code=1)
    assert "missing" in found["message"]


def test_verify_passes_on_an_fp32_engine(encoder: Path, capsys: Capture) -> None:
    found = answer(capsys, "verify", str(encoder))
    assert all(gate["passed"] for gate in found["gates"])
    assert found["outputs"][0]["name"] == "last_hidden_state"
    (engine,) = found["engines"]
    assert engine["target"] == "ort-cpu"
    assert engine == {name: found[name] for name in engine}  # as it also stands on top


def test_verify_where_the_model_has_room_a_layer_at_a_time_or_none(
    decoder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer(capsys, "verify", str(decoder))
    source = resolve(str(decoder.parent / "model"), decoder)
    held = streamed_parameters(source, "text-generation")
    assert held is not None
    asked = []

    def loaded(*given: Any, **options: Any) -> Any:
        asked.append(options)
        return load_reference(*given, **options)

    monkeypatch.setattr("lepton_compile.export.reference.load_reference", loaded)
    for free, streamed in ((4 * held, True), (1 << 40, False)):
        monkeypatch.setattr("lepton_compile.api.memory._free", lambda free=free: free)
        found = answer(capsys, "verify", str(decoder))
        assert asked.pop() == {"streamed": streamed}
        assert {**found, "engines": 0, "seconds": 0} == {**whole, "engines": 0, "seconds": 0}
    monkeypatch.setattr("lepton_compile.api.memory._free", lambda: 4 * held - 1)
    told = answer(capsys, "verify", str(decoder), code=1)
    assert "no room for the fp32 model" in told["message"]
    assert "a layer at a time, needs about" in told["found"]
    assert not asked
    timed = answer(capsys, "bench", str(decoder), "--rounds", "1")
    assert "a layer at a time, needs about" in timed["eager_left_out"]
    monkeypatch.setattr("lepton_compile.api.memory._free", lambda: 4 * held)
    timed = answer(capsys, "bench", str(decoder), "--rounds", "1")
    assert timed["eager_left_out"] == "the fp32 model has no room as a whole"


def test_verify_a_decoder_through_its_cache(decoder: Path, capsys: Capture) -> None:
    found = answer(capsys, "verify", str(decoder))
    assert found["decode_tokens"] > 0
    assert found["decode_agreement"] == 1.0
    assert found["perplexity"] == pytest.approx(found["reference_perplexity"], rel=1e-3)


def test_verify_against_another_model_misses_the_gates(
    decoder: Path, tmp_path: Path, capsys: Capture
) -> None:
    from transformers import LlamaForCausalLM

    other = LlamaForCausalLM.from_pretrained(decoder.parent / "model")
    other.lm_head.weight.data.mul_(-1.0)
    other.save_pretrained(tmp_path / "other")
    found = answer(capsys, "verify", str(decoder), "--model", str(tmp_path / "other"), code=3)
    assert found["error"] == "GateError"
    assert "argmax" in found["found"]
    assert found["exit_code"] == 3
    (missed,) = (gate for gate in found["gates"] if gate["name"] == "argmax")
    assert missed["found"] == found["argmax_agreement"] < missed["demanded"]
    assert found["outputs"][0]["cosine"] < 0


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_model_of_other_sizes_or_tasks_is_told_as_the_one_that_was_named(
    decoder: Path, encoder: Path, tmp_path: Path, capsys: Capture, command: str
) -> None:
    narrow = str(saved("LlamaForCausalLM", llama(vocab_size=50), tmp_path / "narrow"))
    told = answer(capsys, command, str(decoder), "--model", narrow, code=1)
    assert (told["error"], told["where"]) == ("SourceError", "--model")
    assert narrow in told["found"]
    assert "LlamaForCausalLM" in told["hint"]
    (tmp_path / "seeing").mkdir()
    (tmp_path / "seeing/config.json").write_text('{"model_type": "vit"}')
    shutil.copy(encoder.parent / "model/model.safetensors", tmp_path / "seeing")
    told = answer(capsys, command, str(decoder), "--model", str(tmp_path / "seeing"), code=1)
    assert told["error"] == "ExportError"
    assert told["found"] == "ViTConfig"


def test_verify_without_the_source_says_where_it_should_be(
    encoder: Path, tmp_path: Path, capsys: Capture
) -> None:
    missing = str(tmp_path / "gone")
    found = answer(capsys, "verify", str(encoder), "--model", missing, code=1)
    assert missing in found["found"]


@pytest.mark.parametrize("command", ["verify", "bench", "inspect"])
def test_a_folder_that_is_no_artifact(command: str, tmp_path: Path, capsys: Capture) -> None:
    found = answer(capsys, command, str(tmp_path), code=1)
    assert found["error"] == "ArtifactError"
    assert "no manifest.json" in found["hint"]


def test_verify_and_bench_take_no_model_for_another(
    encoder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe's model is where the recipe is, and is the one that was built from."""
    for name in ("here", "there"):
        shutil.copytree(encoder.parent / "model", tmp_path / name / "m")
    (tmp_path / "here/r.yaml").write_text("model: ./m\ntask: feature-extraction\n")
    tokenizer_config = tmp_path / "here/m/tokenizer_config.json"
    tokenizer_config.write_text("{}")
    weights = tmp_path / "there/m/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.chdir(tmp_path / "there")
    answer(capsys, "build", "../here/r.yaml", "-o", "out", "--no-check", "--no-verify")
    answer(capsys, "verify", "out")
    tokenizer_config.write_text("{ }")
    answer(capsys, "verify", "out")
    shutil.copy(weights, tmp_path / "here/m")
    changed = answer(capsys, "verify", "out", code=1)
    assert changed["error"] == "SourceError"
    assert "not what the artifact was made from" in changed["message"]
    assert changed["found"] == "another model.safetensors"
    timed = answer(capsys, "bench", "out", "--rounds", "1")
    assert "not what the artifact was made from" in timed["eager_left_out"]
    shutil.rmtree(tmp_path / "here")  # looked for as it is written, then
    assert answer(capsys, "verify", "out", code=1)["found"] == "another model.safetensors"


def test_rebuild_proves_the_bytes(encoder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    found = answer(capsys, "rebuild", str(encoder), "-o", str(out))
    manifest = json.loads((encoder / "manifest.json").read_text("utf-8"))
    assert (found["same"], found["digest"]) == (True, manifest["digest"])
    assert (found["files"], found["artifact"]) == (len(manifest["files"]), str(out))
    assert answer(capsys, "rebuild", str(encoder), "-o", str(out), code=1)["where"] == "output"
    assert main(["rebuild", str(encoder), "-o", str(out), "--force"]) == 0
    shown = capsys.readouterr().out
    assert f"The same to the last bit: {found['files']} files" in shown
    assert str(out) in shown
    assert answer(capsys, "rebuild", str(tmp_path), code=1)["error"] == "ArtifactError"
    assert answer(capsys, "rebuild", str(encoder / "loader.py"), code=1)["error"] == "ArtifactError"


def test_rebuild_tells_what_differs(
    encoder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 3, and the versions of then."""
    monkeypatch.setattr("lepton_compile.api.describe.tool_versions", lambda: {"torch": "0.1"})
    assert main(["rebuild", str(encoder)]) == 0
    assert re.search(r"torch +\S+ +0\.1", capsys.readouterr().out)
    emit = "lepton_compile.api.building.emit"
    monkeypatch.setattr(emit, lambda folder, _: (folder / "loader.py").write_text("pass"))
    found = answer(capsys, "rebuild", str(encoder), code=3)
    assert found["found"].startswith("another loader.py; ")
    assert found["report"]["other"] == ["loader.py"]
    assert found["report"]["changes"]["torch"][1] == "0.1"


def test_bench_an_encoder(encoder: Path, capsys: Capture) -> None:
    found = answer(capsys, "bench", str(encoder), "--rounds", "1", "--no-eager")
    assert [case["name"] for case in found["cases"]] == ["1x16", "1x64", "32x64"]
    assert found["cases"][0]["eager_ms"] is found["eager_start"] is None
    assert found["start"]["peak_memory_bytes"] > 1 << 20
    assert found["bytes_on_disk"] > 0
    assert found["machine"]["onnxruntime"]


def test_bench_shows_no_columns_of_what_was_not_run(
    decoder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(decoder, copy)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["bench", str(copy), "--rounds", "1", "--no-eager"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ case +p50 +p90 +p99 *$", shown, re.MULTILINE)
    assert re.search(r"^ case +tokens +rows *$", shown, re.MULTILINE)


def test_bench_says_where_its_figures_are_not_kept(
    encoder: Path, tmp_path: Path, capsys: Capture
) -> None:
    """A report of another version is as good as one that may not be written, whoever runs this."""
    copy = tmp_path / "copy"
    shutil.copytree(encoder, copy)
    (copy / "report.json").write_text("{}")
    for arguments in ([], ["--json"]):
        assert main(["bench", str(copy), "--rounds", "1", "--no-eager", *arguments]) == 0
        said = capsys.readouterr()
        assert "Kept in" not in said.out
        assert said.err.endswith(f"Not kept: {copy} has no report, or none that can be written\n")


def test_bench_of_a_file_with_few_positions_names_the_way_out(
    tmp_path: Path, capsys: Capture
) -> None:
    file, out = str(few_positions_model(tmp_path)), str(tmp_path / "out")
    assert main(["build", "--model", file, "-o", out, "-q"]) == 0
    told = answer(capsys, "bench", out, "--rounds", "1", code=1)
    assert "shapes: {sequence: 1..N}" in told["hint"]
    held = ["--set", "shapes.sequence=1..20", "--force", "-q"]
    assert main(["build", "--model", file, "-o", out, *held]) == 0
    assert len(answer(capsys, "bench", out, "--rounds", "1")["cases"]) == 3


def test_bench_a_decoder(decoder: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(decoder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    found = answer(capsys, "bench", str(copy), "--rounds", "1", "--eager")
    assert not [*copy.rglob("__pycache__")]
    assert found["cases"][1]["engine_ms"]["runs"] == found["cases"][1]["eager_ms"]["runs"] == 12
    assert found["eager_start"]["peak_memory_bytes"] > found["start"]["peak_memory_bytes"]
    report = json.loads((copy / "report.json").read_text())
    assert report["bench"]["cases"] == found["cases"]
    assert "decode 13, per token" in (copy / "report.html").read_text()
    assert main(["inspect", str(copy), "--json"]) == 0  # digests still hold
    capsys.readouterr()
    names = [case["name"] for case in found["cases"]]
    assert names == ["prefill 51", "decode 13, per token"]
    assert all(case["engine_tokens_per_second"] > 0 for case in found["cases"])
    assert all(case["speedup"] > 0 for case in found["cases"])


def test_arrays_in_and_out(encoder: Path, tmp_path: Path, capsys: Capture) -> None:
    feeds = {"input_ids": np.ones((2, 5), np.int64), "attention_mask": np.ones((2, 5), np.int64)}
    np.savez(tmp_path / "in.npz", **feeds)
    target = tmp_path / "out.npz"
    arguments = ["--inputs", str(tmp_path / "in.npz"), "-o", str(target)]
    assert answer(capsys, "run", str(encoder), *arguments) == {"output": str(target)}
    with np.load(target) as results:
        assert results["last_hidden_state"].shape == (2, 5, 64)


def test_arrays_that_are_none_are_wrong_usage(
    encoder: Path, tmp_path: Path, capsys: Capture
) -> None:
    np.savez(tmp_path / "whole.npz", input_ids=np.array([[5, 6, 7]]))
    whole = (tmp_path / "whole.npz").read_bytes()
    other = whole.replace(np.array([5]).tobytes(), np.array([9]).tobytes())
    np.save(tmp_path / "one.npy", np.ones(3))
    one = (tmp_path / "one.npy").read_bytes()
    for content in (b"no archive", whole[:60], other, one):
        (tmp_path / "in.npz").write_bytes(content)
        found = answer(capsys, "run", str(encoder), "--inputs", str(tmp_path / "in.npz"), code=2)
        assert "cannot be read" in found["message"]
        assert "pickle" not in found["found"]


def test_run_wants_one_kind_of_input(encoder: Path, capsys: Capture) -> None:
    assert "give one of" in answer(capsys, "run", str(encoder), code=2)["message"]


def test_an_output_that_exists_is_kept(encoder: Path, capsys: Capture) -> None:
    before = (encoder / "manifest.json").read_bytes()
    model = ["--model", str(encoder.parent / "model"), "--task", "feature-extraction"]
    found = answer(capsys, "build", *model, "-o", str(encoder), code=1)
    assert found["error"] == "ArtifactError"
    assert (encoder / "manifest.json").read_bytes() == before


def test_build_as_json_and_missed_gates(encoder: Path, tmp_path: Path, capsys: Capture) -> None:
    model = ["--model", str(encoder.parent / "model"), "--task", "feature-extraction"]
    target = tmp_path / "out"
    found = answer(capsys, "build", *model, "-o", str(target), "--no-check")
    assert found["artifact"] == str(target)
    assert found["report"]["verify"]["relative_error"] < 1e-3
    assert "<!doctype html>" in (target / "report.html").read_text()
    gates = ["--set", "gates.max_error=0"]
    missed = answer(capsys, "build", *model, "-o", str(tmp_path / "no"), *gates, code=3)
    assert "max_error" in missed["found"]
    assert missed["report"]["verify"]["outputs"][0]["max_abs"] > 0
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["no.failed.html", "no.failed.json", "out"]


def test_a_missed_gate_shows_what_was_measured(
    encoder: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = ["--model", str(encoder.parent / "model"), "--task", "feature-extraction"]
    gates = ["--no-check", "--set", "gates.max_error=0"]
    assert main(["build", *model, "-o", str(tmp_path / "no"), *gates]) == 3
    captured = capsys.readouterr()
    assert "last_hidden_state" in captured.out
    assert "missed" in captured.out
    assert "no.failed.html" in captured.err.replace("\n", "")


def test_verify_asks_for_what_the_recipe_asked(
    encoder: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("One paragraph.\n\nAnother one.\n\nA third.")
    model = ["--model", str(encoder.parent / "model"), "--task", "feature-extraction"]
    sets = ["gates.max_error=0", "verify.tokens=40"]
    options = [part for each in sets for part in ("--set", each)]
    built = ["-o", "out", "--no-check", "--no-verify", *options]
    (tmp_path / "r.yaml").write_text("model: ./m\nverify: {text: words.txt}\n")
    answer(capsys, "build", "r.yaml", *model, *built)
    found = answer(capsys, "verify", "out", code=3)
    assert found["found"].startswith("max_error")
    assert found["sample"] == "random ids, as there is no tokenizer"
    assert found["tokens"] < 100
    assert found["target"] == "ort-cpu"
    answer(capsys, "verify", "out", "--set", "gates.max_error=0.01")
    (tmp_path / "words.txt").write_text("Other words.")
    changed = answer(capsys, "verify", "out", "--set", "gates.max_error=0.01", code=2)
    assert "another content" in changed["found"]
    given = ["--text", str(tmp_path / "words.txt")]
    answer(capsys, "verify", "out", "--set", "gates.max_error=0.01", *given)


def test_verify_refuses_a_text_that_nothing_is_compared_on(
    decoder: Path, tmp_path: Path, capsys: Capture
) -> None:
    words, model = tmp_path / "words.txt", tmp_path / "model"
    shutil.copytree(decoder.parent / "model", model)
    byte_tokenizer(model)
    given = ["verify", str(decoder), "--model", str(model), "--text", str(words)]
    for content, said in ((b"", "empty"), (b"\xff", "cannot be read"), (b"a", "no token that")):
        words.write_bytes(content)
        found = answer(capsys, *given, code=2)
        assert (found["error"], found["where"]) == ("UsageError", "--text")
        assert said in found["message"]
        assert str(words) in found["found"]


def test_verify_takes_engines_and_gates_by_name(encoder: Path, capsys: Capture) -> None:
    assert answer(capsys, "verify", str(encoder), "--target", "ort-cpu")["target"] == "ort-cpu"
    missing = answer(capsys, "verify", str(encoder), "--target", "trt-rtx", code=2)
    assert missing["available"] == ["ort-cpu"]
    other = answer(capsys, "verify", str(encoder), "--set", "quantize=int8", code=2)
    assert "only gates" in other["message"]
    typo = answer(capsys, "verify", str(encoder), "--set", "gates.perplexty=1", code=2)
    assert typo["where"] == "--set gates.perplexty"
    other = answer(capsys, "verify", str(encoder), "--set", "gates.perplexity=0.1", code=2)
    assert (other["where"], other["error"]) == ("--set gates.perplexity", "RecipeError")


def test_progress_of_a_build_names_each_stage_and_its_time(
    encoder: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = ["--model", str(encoder.parent / "model"), "--task", "feature-extraction"]
    assert main(["build", *model, "-o", str(tmp_path / "out"), "--no-verify", "--no-check"]) == 0
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    stages = [line.partition(":")[0] for line in lines if "done in" not in line]
    stages = list(dict.fromkeys(stages))  # a long one is told more than once
    assert stages == ["resolve", "capture", "passes", "build", "seal", "finish"]
    ended = [line.partition(":")[0] for line in lines if re.search(r"done in \S+ s$", line)]
    assert ended == stages
    assert str(tmp_path / "out") in captured.out.replace("\n", "")


def test_a_wrong_recipe_names_its_line(tmp_path: Path, capsys: Capture) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: ./m\nquantise: int8\n")
    found = answer(capsys, "build", str(recipe), code=2)
    assert found["where"].endswith("r.yaml:2")


def test_plan_builds_nothing(encoder: Path, tmp_path: Path, capsys: Capture) -> None:
    model = ["--model", str(encoder.parent / "model"), "--task", "feature-extraction"]
    same = ["-o", str(tmp_path / "x"), "--no-check", "--no-verify", "--max-memory", "4GB"]
    found = answer(capsys, "plan", *model, "--quantize", "int8", *same)
    assert [engine["precision"] for engine in found["engines"]] == ["int8"]
    assert (found["check"], found["verify"]) == (None, None)
    assert found["parameters"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_plan_fits_eighty_columns_and_has_units(
    decoder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(decoder.parent)
    assert main(["plan", "--model", "model", "--target", "ort-cpu,trt-rtx"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "Files for trt-rtx in fp16" in said
    (line,) = (line for line in said.splitlines() if "verification" in line)
    assert re.search(r"verification +\S+ (ms|s) +\S+ MB", line)
