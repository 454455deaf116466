"""The benchmark of models on a GPU, tried out on the CPU with tiny ones."""

from __future__ import annotations

import json
from pathlib import Path

import cuda_models
import pairs
import pytest

from lepton_compile.engines.probe import probe

TINY = {
    "minilm-l6": {
        **cuda_models.MINILM,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 99,
    },
    "opus-mt": {
        **pairs._halves(4, 32, 64),
        "encoder_layers": 1,
        "decoder_layers": 1,
        "vocab_size": 99,
        "pad_token_id": 98,
        "decoder_start_token_id": 98,
    },
}


@pytest.mark.parametrize("wrong", [["--only", "gpt-5"], ["--tools", "jax"], ["--device", "tpu"]])
def test_wrong_arguments_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cuda_models.arguments(wrong)
    assert caught.value.code == 2


def test_it_measures_and_names_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, sizes in TINY.items():
        kind, auto, _ = cuda_models.SHAPES[name]
        monkeypatch.setitem(cuda_models.SHAPES, name, (kind, auto, sizes))
    given = ["--device", "cpu", "--tools", "lepton", "eager", "--only", *TINY]
    given += ["--source", "9", "--new", "4", "--many", "2", "--rounds", "1"]
    assert cuda_models.main([*given, "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["device"]
    assert found["conditions"] == {"source": 9, "new": 4, "many": 2, "rounds": 1}
    assert list(found["models"]) == list(TINY)
    writes = found["models"]["opus-mt"]["writing"]
    assert set(writes) == {"lepton", "eager"}
    assert all(each["reads_s"] > 0 < each["token_s"] for each in writes.values())
    whole = found["models"]["minilm-l6"]["2 rows"]
    assert set(whole["seconds"]) == {"lepton", "eager"}
    assert whole["difference"] < 1e-3


@pytest.mark.skipif(probe("ort-cuda").runs, reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda_models.main([]) == 2
    assert "ort-cuda does not run here" in capsys.readouterr().err
