"""One recipe, one model, one set of versions: the same bytes in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

BUILD = """
import sys
import lepton_compile as lc

model, task, output = sys.argv[1:]
shapes = {"sequence": 32}
lc.build(model=model, task=task, shapes=shapes, output=output, check=False, verify=False)
"""
TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
# Gemma 3 makes a rotary table for each kind of layer, in the order of a set; ModernBERT masks.
GEMMA = transformers.Gemma3TextConfig(
    **TINY,
    num_key_value_heads=1,
    head_dim=16,
    sliding_window=8,
    layer_types=["sliding_attention", "full_attention"],
)
MODERNBERT = transformers.ModernBertConfig(**TINY, global_attn_every_n_layers=2, pad_token_id=0)


@pytest.mark.parametrize(
    ("config", "task"), [(GEMMA, "text-generation"), (MODERNBERT, "feature-extraction")]
)
def test_hashes_do_not_decide(config: object, task: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind = transformers.AutoModelForCausalLM if "gen" in task else transformers.AutoModel
    kind.from_config(config).save_pretrained(tmp_path / "model")
    built = [_built(tmp_path / "model", task, tmp_path / seed, seed) for seed in ("0", "1")]
    assert "manifest.json" in built[0]
    assert built[0] == built[1]


def _built(model: Path, task: str, output: Path, seed: str) -> dict[str, bytes]:
    """Files of the artifact that a process of its own builds, but for the reports."""
    command = [sys.executable, "-c", BUILD, str(model), task, str(output)]
    salted = os.environ | {"PYTHONHASHSEED": seed}
    subprocess.run(command, env=salted, check=True, capture_output=True)
    found = (path for path in output.rglob("*") if path.is_file())
    kept = (path for path in found if not path.name.startswith("report."))
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in kept}
