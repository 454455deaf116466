"""GGUF models of 4 bits, from a file to an engine that runs with the file's own integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

import lepton_compile as lc
from lepton_compile.errors import LeptonError
from lepton_compile.export.checkpoint import GGUFCheckpoint
from lepton_compile.export.checkpoint.gguf_header import read_header
from lepton_passes.lowering.ort.rounded_attention import LowerRoundedAttention
from tests.api.test_quantized_sources import error_of, logits, nodes_of
from tests.export import gguf_files
from tests.plugins.cpu_library import needs_library

# Blocks of Q4_K are 256 columns; those of Q4_1 fit the sizes that a tiny model has.
WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
PRECISION = {
    "bits": 4,
    "embedding": "none",
    "rules": [{"match": "lm_head.*", "bits": "none"}],
}


def stored(folder: Path, architecture: str, kind: Kind, **others: Kind) -> tuple[Path, Any]:
    """A file, and its model with the values that the file stands for."""
    model = gguf_files.tiny_model(architecture, **(WIDE if kind == Kind.Q4_K else {}))
    path = gguf_files.write(folder / "m.gguf", architecture, model, kind, others=others)
    checkpoint = GGUFCheckpoint(read_header(path))
    for name, parameter in model.named_parameters():
        if name in checkpoint.names():
            parameter.data.copy_(torch.from_numpy(checkpoint.tensor(name).numpy().copy()))
    return path, model


def keeping(artifact: Path) -> dict[str, Any]:
    report = json.loads((artifact / "report.json").read_text())
    (found,) = [each for each in report["passes"] if each["name"] == "weight-stored"]
    return dict(found)


@needs_library
@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.Q4_K])
def test_offsets_stay_as_they_are(kind: Kind, tmp_path: Path) -> None:
    """What is left is the error of activations in 8 bits."""
    path, model = stored(tmp_path, "llama", kind)
    expected, recipe = logits(model), {"quantize": PRECISION, "kernels": "native"}
    without = [LowerRoundedAttention.name]  # which rounds values, too
    kept = error_of(path, tmp_path / "kept", expected, **recipe, passes={"disable": without})
    without = [*without, "weight-stored"]
    rounded = error_of(path, tmp_path / "again", expected, **recipe, passes={"disable": without})
    assert kept < 0.01
    assert rounded > 4 * kept
    found = keeping(tmp_path / "kept")
    assert (found["fired"], found["refusals"]) == (14, [])
    assert found["error"] < 1e-6
    layers = [node for node in nodes_of(tmp_path / "kept") if node.op_type == "QuantizedLinear"]
    assert len(layers) == 4 * 2
    assert all(each.i for node in layers for each in node.attribute if each.name == "offsets")


@needs_library
def test_experts_keep_their_offsets(tmp_path: Path) -> None:
    path, model = stored(tmp_path, "mixtral", Kind.Q4_1)
    rules = [{"match": name, "bits": "none"} for name in ("*.self_attn.*", "lm_head.*")]
    precision = {"bits": 4, "embedding": "none", "rules": rules}
    error = error_of(path, tmp_path / "kept", logits(model), quantize=precision, kernels="native")
    assert error < 0.02
    found = keeping(tmp_path / "kept")
    # Converters leave routers in fp32.
    assert {each["reason"] for each in found["refusals"]} == {"experts are chosen by it"}
    assert found["fired"] == 4
    nodes = [node for node in nodes_of(tmp_path / "kept") if node.op_type == "QuantizedExperts"]
    assert len(nodes) == 2


def test_where_no_kernel_has_offsets_weights_are_rounded_again(tmp_path: Path) -> None:
    path, model = stored(tmp_path, "llama", Kind.Q4_1)
    recipe = {"quantize": PRECISION, "kernels": "builtin"}
    assert error_of(path, tmp_path / "out", logits(model), **recipe) < 0.2
    found = keeping(tmp_path / "out")
    assert found["fired"] == 0
    reasons = {each["reason"] for each in found["refusals"]}
    assert reasons == {"rounded again: onnxruntime has no offsets"}


@needs_library
@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(
    ("kind", "at", "half", "quantize"),
    [
        (Kind.Q4_1, 0, np.nan, "int4"),
        (Kind.Q4_1, 2, 6e4, "stored"),  # an offset
        (Kind.Q4_K, 0, np.inf, "int4"),
        (Kind.Q4_0, 0, np.nan, "int4"),
        (Kind.Q8_0, 0, np.nan, "int8"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(
    kind: Kind, at: int, half: float, quantize: str, check: bool, tmp_path: Path
) -> None:
    path, _ = stored(tmp_path, "llama", kind)
    place = read_header(path).tensors["blk.0.ffn_up.weight"].offset + at
    data = bytearray(path.read_bytes())
    data[place : place + 2] = np.float16(half).tobytes()
    path.write_bytes(data)
    options: dict[str, Any] = {"quantize": quantize, "kernels": "native", "verify": False}
    words = "is too large for the fp16 scales" if np.isfinite(half) else "NaN or infinit"
    with pytest.raises(LeptonError, match=words) as caught:
        lc.build(model=str(path), output=tmp_path / "out", check=check, **options)
    assert "up" in str(caught.value)
    assert not (tmp_path / "out").exists()


@needs_library
def test_they_are_the_same_bytes_again(tmp_path: Path) -> None:
    path, _ = stored(tmp_path, "llama", Kind.Q4_K)
    options: dict[str, Any] = {"quantize": PRECISION, "check": False, "verify": False}
    one, other = (
        lc.build(model=str(path), output=tmp_path / name, **options).path / "engines/ort-cpu"
        for name in ("one", "other")
    )
    assert (one / "weights.bin").read_bytes() == (other / "weights.bin").read_bytes()
    assert np.array_equal((one / "model.onnx").read_bytes(), (other / "model.onnx").read_bytes())
