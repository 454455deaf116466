"""Decoders with states for the CUDA provider, with the CPU standing for the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lepton_compile as lc
from lepton_compile.runtime.loader_shared_states import SharedStates
from tests.export.harness import relative_error, save
from tests.export.hybrids import HYBRIDS

ROWS = [[5, 17, 3, 42, 8, 61], [9, 2, 33]]
FP16 = 0.02


@pytest.mark.parametrize("name", ["qwen3.5", "mamba2", "falcon-h1"])
def test_recurrent_states_stay_in_fp32(name: str, tmp_path: Path, stand_in: None) -> None:
    """They are sums over all tokens; what a convolution keeps are a few inputs."""
    reference = save(HYBRIDS[name].config, "text-generation", tmp_path / "model")
    given = {"target": "ort-cuda", "compute": "fp16", "verify": False, "check": False}
    made = lc.build(model=str(tmp_path / "model"), output=tmp_path / "out", **given)
    (engine,) = made.manifest.engines
    types = {entry["name"].split(".")[0]: entry["dtype"] for entry in engine["io"]["inputs"]}
    assert types["past_recurrent"] == "float32"
    assert types["past_conv"] == "float16"
    with lc.load(made.path, target="ort-cuda") as model, torch.no_grad():
        cache = model.new_cache(2, 32)
        assert isinstance(cache, SharedStates)
        for _ in range(2):
            rows, found = [list(row) for row in ROWS], cache.start(ROWS)
            for token in range(3, 7):
                for row, scores in zip(rows, found, strict=True):
                    expected = reference(torch.tensor([row])).logits[0, -1].numpy()
                    assert relative_error(scores, expected) < FP16
                    row.append(token)
                found = cache.step([token] * 2, [True] * 2)
