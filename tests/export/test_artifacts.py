"""From a model to the tokens of its artifact: sources and decoders, through build and loader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lepton_compile as lc
from lepton_compile.artifact import Artifact
from lepton_plugins.native import why_not

from . import gguf_files
from .harness import FP32, relative_error, save
from .zoo import DECODERS, MORE_DECODERS, SHARING

PROMPTS = ([5, 17, 3, 42, 8, 11, 29], [7, 61], [13, 4, 90, 33])  # of different lengths
STEPS = 12
# How far below the best logit of PyTorch a chosen token may be, of the range of the logits.
GAP = {"none": 1e-4, "int8": 0.02, "int4": 0.2}


def _build(source: Path, output: Path, **options: Any) -> Artifact:
    return lc.build(model=str(source), output=output, verify=False, **options)


def _gaps(model: torch.nn.Module, prompt: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
    """For each token, how far its logit is below the best one, of the range."""
    ids = torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].numpy()
    chosen = np.take_along_axis(logits, np.array(tokens)[:, None], axis=1)[:, 0]
    return (logits.max(1) - chosen) / (logits.max(1) - logits.min(1))


def _endless(name: str) -> Any:
    """A configuration without an end token, so that every row is as long as asked for."""
    every: dict[str, tuple[Any, ...]] = {**DECODERS, **MORE_DECODERS, **SHARING}
    config = every[name][0]()
    config.eos_token_id = None
    return config


@pytest.mark.parametrize(
    ("name", "quantize"),
    [
        ("gpt2", "int8"),
        ("phi3", "int4"),
        ("falcon-alibi", "int8"),  # biases in bf16, which the check emulates
        ("gemma3", "none"),
        ("gemma3", "int8"),
        ("gemma3", "int4"),
        ("gemma4-e2b", "none"),  # layers that read the cache of another
        ("gemma4-e2b", "int4"),
    ],
)
def test_ragged_batches_of_the_zoo(name: str, quantize: str, tmp_path: Path) -> None:
    """Rows of different lengths, past the window: each row is what PyTorch makes of it alone."""
    model = save(lambda: _endless(name), "text-generation", tmp_path / "model")
    artifact = _build(tmp_path / "model", tmp_path / "out", quantize=quantize)
    assert artifact.manifest.engines[0]["precision"] == ("fp32" if quantize == "none" else quantize)
    with lc.load(artifact.path) as engine:
        found = engine.generate([list(p) for p in PROMPTS], max_new_tokens=STEPS)
    rows = [generation.tokens for generation in found]
    assert [len(row) for row in rows] == [STEPS] * len(PROMPTS)
    gaps = np.concatenate([_gaps(model, p, row) for p, row in zip(PROMPTS, rows, strict=True)])
    assert gaps.max() <= GAP[quantize]


@pytest.mark.parametrize(
    ("name", "quantize"),
    [
        ("gemma4-e2b", "none"),  # first those that were traced last, which are still known
        ("gemma4-e2b", "int8"),
        ("gemma3", "int4"),
        ("qwen3", "int8"),
        ("gpt-neox", "none"),
        ("falcon", "int8"),
        ("mixtral", "int8"),  # experts, in front of which tokens stand one behind the other
        ("deepseek-v3", "none"),  # of which groups are chosen
        ("opt", "int4"),
    ],
)
def test_positions_that_are_left_out_change_no_number(
    name: str, quantize: str, tmp_path: Path
) -> None:
    """Of the last layer, and those behind it without keys, the engine computes what the wanted
    logits need: onnxruntime's kernel has it of the last alone."""
    save(lambda: _endless(name), "text-generation", tmp_path / "model")
    artifact = _build(tmp_path / "model", tmp_path / "out", quantize=quantize)
    report = json.loads((artifact.path / "report.json").read_text())
    (done,) = (each for each in report["passes"] if each["name"] == "lower-last-layer")
    ours = name == "gemma4-e2b" and quantize == "int8" and why_not() is None
    assert (done["fired"], done["refusals"]) == (4 if ours else 1, [])
    ids = np.array([[5, 17, 3, 42, 8, 11, 29], [7, 61, 2, 9, 9, 1, 3]])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    with lc.load(artifact.path) as engine:
        whole = engine.run(feeds)["logits"]
        for count in (1, 3, 7, 9):
            part = engine.run({**feeds, "logits_to_keep": count})["logits"]
            assert np.abs(part - whole[:, -count:]).max() <= FP32 * np.ptp(whole)
        past = engine.run({name: array[:, :4] for name, array in feeds.items()})
        step = {"input_ids": ids[:, 4:5], "attention_mask": np.ones((2, 5), np.int64)}
        step |= {
            name.replace("present", "past_key_values"): array
            for name, array in past.items()
            if name != "logits"
        }
        every = engine.run(step)["logits"]
        for count in (1, 3):
            part = engine.run({**step, "logits_to_keep": count})["logits"]
            assert np.abs(part - every).max() <= FP32 * np.ptp(whole)
        feeds["attention_mask"][1, :3] = 0  # padded on the left
        whole = engine.run(feeds)["logits"]
        for count in (1, 3):
            part = engine.run({**feeds, "logits_to_keep": count})["logits"]
            assert np.abs(part - whole[:, -count:]).max() <= FP32 * np.ptp(whole)


@pytest.mark.parametrize("architecture", ["gemma3", "qwen3"])
def test_a_gguf_file_runs_from_its_artifact(architecture: str, tmp_path: Path) -> None:
    model = gguf_files.tiny_model(architecture)
    source = gguf_files.write(tmp_path / "m.gguf", architecture, model)
    artifact = _build(source, tmp_path / "out")
    assert set(artifact.manifest.lock["inputs"]) == {"m.gguf"}
    assert artifact.manifest.model["trust_remote_code"] is False
    ids = [5, 17, 3, 42, 8]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits.numpy()
        greedy = model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)
    with lc.load(artifact.path) as engine:
        assert relative_error(engine.logits(ids), expected) <= FP32
        assert list(engine.generate(ids, max_new_tokens=20).tokens) == greedy[0, 5:].tolist()
        assert engine.generate("ab", max_new_tokens=2).text is not None


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}


def test_code_that_is_trusted_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    folder = tmp_path / "model"
    model = save(DECODERS["llama"][0], "text-generation", folder)
    file = folder / "config.json"
    own = {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": AUTO_MAP}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    (folder / "own.py").write_text(CODE)
    with pytest.raises(lc.LeptonError, match="needs Python code"):
        _build(folder, tmp_path / "out")
    artifact = _build(folder, tmp_path / "out", trust_remote_code=True)
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert manifest["model"]["trust_remote_code"] is True
    assert manifest["model"]["architecture"] == "OwnForCausalLM"
    assert manifest["lock"]["recipe"]["trust_remote_code"] is True
    assert "own.py" in manifest["lock"]["inputs"]
    assert not list(artifact.path.rglob("own.py"))
    with torch.no_grad():
        expected = model(torch.tensor([PROMPTS[0]])).logits.numpy()
    with lc.load(artifact.path) as engine:
        assert relative_error(engine.logits(list(PROMPTS[0])), expected) <= FP32
