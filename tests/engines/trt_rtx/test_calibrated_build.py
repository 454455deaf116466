"""Plans with arithmetic in 8 bits, from a folder to an artifact: int8, fp8, encoder, decoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from lepton_compile.cli import main
from lepton_compile.numerics.sample_text import digest
from tests.export.harness import save

pytest.importorskip("tensorrt_rtx")

SIZES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "bert": ("feature-extraction", lambda: transformers.BertConfig(**SIZES)),
    "llama": ("text-generation", lambda: transformers.LlamaConfig(**SIZES, num_key_value_heads=1)),
}
BERT_LAYERS, LLAMA_LAYERS = 2 * 6, 2 * 7 + 1  # and the head


def _model(folder: Path, name: str) -> tuple[Path, str]:
    """A random model, and a tokenizer that knows letters."""
    task, config = MODELS[name]
    if not (folder / name).is_dir():
        save(config, task, folder / name)
        ids = {letter: n for n, letter in enumerate(["?", *"abcdefghijklmnopqrstuvwxyz"])}
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token="?"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")
        fast.save_pretrained(folder / name)
    return folder / name, task


def _build(folder: Path, name: str, quantize: str, *more: str) -> tuple[int, Path]:
    model, task = _model(folder, name)
    output = folder / f"{name}-{quantize.strip('{}')[:12]}"
    arguments = ["--model", str(model), "--task", task, "--target", "trt-rtx", "-q"]
    sets = ["--set", f"quantize={quantize}", "--set", "shapes={batch: 1..2, sequence: 1..32}"]
    return main(["build", *arguments, *sets, *more, "-o", str(output)]), output


@pytest.mark.parametrize(
    ("name", "quantize", "passes"),
    [
        ("bert", "int8", {"weight-int8": BERT_LAYERS, "activation-int8": BERT_LAYERS}),
        ("bert", "fp8", {"weight-fp8": BERT_LAYERS, "activation-fp8": BERT_LAYERS}),
        ("llama", "fp8", {"weight-fp8": LLAMA_LAYERS, "activation-fp8": LLAMA_LAYERS}),
        (
            "llama",
            "{bits: 8, activations: static}",
            {"weight-int8": LLAMA_LAYERS, "activation-int8": LLAMA_LAYERS},
        ),
        ("llama", "int8", {"weight-int8": LLAMA_LAYERS}),
    ],
)
def test_layers_read_what_was_rounded(
    tmp_path: Path, name: str, quantize: str, passes: dict[str, int]
) -> None:
    code, output = _build(tmp_path, name, quantize)
    assert code == 0
    report = json.loads((output / "report.json").read_text())
    fired = {p["name"]: p["fired"] for p in report["passes"]}
    assert {key: fired[key] for key in passes} == passes
    rounded = any(key.startswith("activation-") for key in fired)
    assert rounded == (len(passes) > 1)
    counts = report["builders"]["trt-rtx"]["counts"]
    assert bool(counts.get("QUANTIZE")) == rounded
    assert counts["DEQUANTIZE"] >= counts.get("QUANTIZE", 0)
    lock = json.loads((output / "manifest.json").read_text())["lock"]
    assert lock["calibration"] == (digest("calibration") if rounded else None)


@pytest.mark.parametrize(
    ("quantize", "dtype", "gpus", "kernels"),
    [
        ("{cache: int8}", "int8", ["8.6"], ["8.6"]),
        ("{bits: 8, cache: fp8}", "float8_e4m3fn", ["8.9+"], ["8.9", "12.0"]),
    ],
)
def test_a_cache_in_8_bits(
    tmp_path: Path,
    quantize: str,
    dtype: str,
    gpus: list[str],
    kernels: list[str],
) -> None:
    pytest.importorskip("triton")
    named = [] if "+" in gpus[0] else ["--set", f"compute_capabilities={gpus}"]
    code, output = _build(tmp_path, "llama", quantize, *named)
    assert code == 0
    manifest = json.loads((output / "manifest.json").read_text())
    (engine,) = manifest["engines"]
    cache = engine["cache"]
    assert (cache["dtype"], cache["capacity"], cache["aliased"]) == (dtype, 32, True)
    pasts = {s["name"]: s["dtype"] for s in engine["io"]["inputs"] if "." in s["name"]}
    assert {*pasts.values()} == {dtype}
    assert cache["scales"].keys() == pasts.keys() == {*engine["aliases"].values()}
    assert len({*cache["scales"].values()}) == 4, "each cache has its own"
    assert engine["attention"] == {"layers": 2, "forms": {"plugin": 2}}
    assert engine["compute_capabilities"] == gpus
    assert engine["plugin"]["architectures"] == kernels
    assert engine["executed"] is False
    assert manifest["lock"]["calibration"] == digest("calibration")
    index = json.loads((output / "engines/trt-rtx/plugin/kernels/kernels.json").read_text())
    assert len(index["sets"]) == 1, "layers share their kernels"
    report = json.loads((output / "report.json").read_text())
    assert next(p["fired"] for p in report["passes"] if p["name"] == "quantize-cache") == 2


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("bert", (), "only text-generation has its KV caches narrowed"),
        ("llama", ("compute_capabilities=['8.6']",), "8.6 has no arithmetic for FLOAT8E4M3FN"),
        ("llama", ("compute=fp32",), "has a cache of 8 bits, computes in halves alone"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    more: tuple[str, ...],
    said: str,
) -> None:
    sets = [word for each in more for word in ("--set", each)]
    code, output = _build(tmp_path, name, "{cache: fp8}", *sets)
    assert code in (1, 2)
    assert not output.exists()
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_gpu_without_fp8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = _build(tmp_path, "bert", "fp8", "--set", "compute_capabilities=['8.6']")
    assert code == 1
    assert "8.6 has no arithmetic for FLOAT8E4M3FN" in " ".join(capsys.readouterr().err.split())
    assert not output.exists()


def test_without_a_tokenizer_there_is_no_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = _model(tmp_path, "bert")
    for path in model.glob("tokenizer*"):
        path.unlink()
    code, output = _build(tmp_path, "bert", "int8")
    said = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert "has no tokenizer" in said
    assert "activations: none" in said
    assert not output.exists()
    assert _build(tmp_path, "bert", "{bits: 8, activations: none}")[0] == 0
