"""The GPU benchmark, tried out on the CPU with a tiny model: arguments, turns and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import ort_cuda
import pytest

from lepton_compile.engines.probe import probe
from tests.export import zoo
from tests.export.harness import save


def test_what_is_asked_for_by_default() -> None:
    found = ort_cuda.arguments([])
    assert (found.device, found.compute, tuple(found.tools)) == ("cuda", "fp16", ort_cuda.TOOLS)


@pytest.mark.parametrize("wrong", [["--new", "1"], ["--tools", "jax"], ["--device", "tpu"]])
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        ort_cuda.arguments(wrong)
    assert caught.value.code == 2


def test_ratios_are_those_of_decode() -> None:
    made = ort_cuda.summary({"lepton": [(1.0, 0.1)], "eager": [(2.0, 0.3), (2.0, 0.3)]}, 8)
    assert made["tools"]["lepton"] == {"prefill_tok_s": 8.0, "decode_tok_s": 10.0}
    assert made["decode_ratio"] == {"eager": pytest.approx(3.0)}


def test_it_measures_and_names_the_device(tmp_path: Path) -> None:
    save(zoo.DECODERS["llama"][0], "text-generation", tmp_path / "model")
    given = ["--device", "cpu", "--model", str(tmp_path / "model"), "--work", str(tmp_path / "w")]
    given += ["--tools", "lepton", "eager", "--prompt", "8", "--new", "4", "--rounds", "2"]
    assert ort_cuda.main([*given, "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["device"]
    assert found["verify"]["argmax"] == 1.0
    assert {tool: len(rounds) for tool, rounds in found["rounds"].items()} == {
        "lepton": 2,
        "eager": 2,
    }
    assert found["conditions"] == {"prompt": 8, "new": 4, "compute": "fp16"}


@pytest.mark.skipif(probe("ort-cuda").runs, reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert ort_cuda.main([]) == 2
    assert "ort-cuda does not run here" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not probe("ort-cuda").runs, reason=probe("ort-cuda").reason or "runs")
def test_on_a_gpu(tmp_path: Path) -> None:
    save(zoo.DECODERS["llama"][0], "text-generation", tmp_path / "model")
    given = ["--model", str(tmp_path / "model"), "--work", str(tmp_path / "w"), "--rounds", "1"]
    assert ort_cuda.main([*given, "--prompt", "8", "--new", "4"]) == 0
