"""A model with a LoRA adapter, from two folders to one engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lepton_compile as lc
from lepton_compile.cli import main
from tests.api.test_quantized_sources import logits, of_engine, span
from tests.export.test_adapted import adapter
from tests.small import byte_tokenizer, llama, made

RANK = 4


def trained(folder: Path) -> tuple[Path, Path, Any]:
    """A base, an adapter of it, and the model that both are together."""
    model = made("LlamaForCausalLM", llama(vocab_size=260))
    model.save_pretrained(folder / "base")
    byte_tokenizer(folder / "base")
    tensors: dict[str, torch.Tensor] = {}
    random = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith(("q_proj.weight", "down_proj.weight")):
            down = torch.randn(RANK, parameter.shape[1], generator=random) * 0.1
            up = torch.randn(parameter.shape[0], RANK, generator=random) * 0.1
            layer = name.removesuffix(".weight")
            tensors |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
            parameter.data += 6 / RANK * up @ down
    return folder / "base", adapter(folder / "lora", tensors, r=RANK), model


def test_one_engine_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, lora, model = trained(tmp_path)
    built = lc.build(model=base, adapter=lora, output=tmp_path / "out")
    expected = logits(model)
    assert np.abs(of_engine(built) - expected).max() < 2e-5 * span(expected)
    assert built.manifest.model["adapter"] == str(lora)
    inputs = built.manifest.lock["inputs"]
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} < set(inputs)
    report = json.loads((built.path / "report.json").read_text())
    assert any("adapter" in note for note in report["capture"]["notes"])
    capsys.readouterr()
    assert main(["verify", str(built.path), "--json"]) == 0
    assert all(gate["passed"] for gate in json.loads(capsys.readouterr().out)["gates"])
    assert lc.rebuild(built).manifest == built.manifest
    assert main(["inspect", str(built.path)]) == 0
    shown = "".join(capsys.readouterr().out.split())
    assert f"adapter{lora}" in shown
