"""One recipe, one model, one set of versions: the same bytes in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from tests.small import byte_tokenizer, llama, saved

BUILD = """
import sys
import lepton_compile as lc
from lepton_compile.api.libraries import own_process

own_process()  # loads as the command line does: less
folder, output = sys.argv[1:]
for task in ("text-generation", "feature-extraction"):
    place = {"model": f"{folder}/{task}", "output": f"{output}/{task}"}
    lc.build(task=task, shapes={"sequence": 32}, check=False, verify=False, **place)
"""
TINY = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
# Gemma 4 makes a rotary table for each kind of layer, in the order of a set that it was made with,
# ModernBERT masks, in that of a set that it makes as it runs.
GEMMA = transformers.Gemma4TextConfig(
    **TINY,
    num_key_value_heads=1,
    head_dim=16,
    global_head_dim=16,
    hidden_size_per_layer_input=0,
    sliding_window=8,
    layer_types=["sliding_attention", "full_attention"],
)
MODERNBERT = transformers.ModernBertConfig(**TINY, global_attn_every_n_layers=2, pad_token_id=0)


MODELS = {"text-generation": GEMMA, "feature-extraction": MODERNBERT}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders with the artifacts of both models, each folder built in a process of its own."""
    folder = tmp_path_factory.mktemp("reproducible")
    for task, config in MODELS.items():
        torch.manual_seed(0)
        kind = transformers.AutoModelForCausalLM if "gen" in task else transformers.AutoModel
        kind.from_config(config).save_pretrained(folder / "models" / task)
    for seed in ("0", "1"):
        command = [sys.executable, "-c", BUILD, str(folder / "models"), str(folder / seed)]
        salted = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run(command, env=salted, check=True, capture_output=True)
    return [folder / "0", folder / "1"]


@pytest.mark.parametrize("task", MODELS)
def test_hashes_do_not_decide(task: str, outputs: list[Path]) -> None:
    built = [_files(output / task) for output in outputs]
    assert "manifest.json" in built[0]
    assert built[0] == built[1]


FITTED = """
import sys
import lepton_compile as lc

model, output = sys.argv[1:]
how = {"algorithm": "gptq", "bits": 4}
lc.build(model=model, quantize=how, output=output, tactics="default", check=False, verify=False)
"""


def test_threads_do_not_decide_what_is_fitted_to_a_sample(tmp_path: Path) -> None:
    """Several add in another order than one: wide enough here for a BLAS to take several."""
    wide = {"vocab_size": 260, "hidden_size": 512, "intermediate_size": 512}
    folder = saved("LlamaForCausalLM", llama(**wide, num_hidden_layers=1), tmp_path / "llama")
    byte_tokenizer(folder)
    for threads in ("1", "2"):
        command = [sys.executable, "-c", FITTED, str(folder), str(tmp_path / threads)]
        subprocess.run(command, env=os.environ | _threads(threads), check=True)
    assert _files(tmp_path / "1") == _files(tmp_path / "2")


def _threads(count: str) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return dict.fromkeys(names, count)


def _files(output: Path) -> dict[str, bytes]:
    """Files of an artifact, but for the reports."""
    found = (path for path in output.rglob("*") if path.is_file())
    kept = (path for path in found if not path.name.startswith("report."))
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in kept}
