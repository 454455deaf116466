"""Models that read one text and write another, with the CPU standing for the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

import lepton_compile as lc
from lepton_compile.runtime.loader_cuda_pair import CudaPair
from tests.api.test_pairs import listening
from tests.export.harness import padded, relative_error, save
from tests.export.zoo_pairs import PAIRS

SOURCES = [[5, 6, 7, 8, 9, 10, 11], [11, 12, 13]]
FP16 = 0.02


pytestmark = pytest.mark.usefixtures("stand_in")


def _built(folder: Path) -> Path:
    given = {"task": "text2text-generation", "compute": "fp16", "verify": False, "check": False}
    both = ["ort-cpu", "ort-cuda"]
    lc.build(model=str(folder / "model"), target=both, output=folder / "out", **given)
    return folder / "out"


# Keys and values in place, and growing.
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_both_parts_in_half_precision(name: str, tmp_path: Path) -> None:
    save(PAIRS[name][0], "text2text-generation", tmp_path / "model")
    reference = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval()
    built = _built(tmp_path)
    folder = built / "engines" / "ort"
    files = {file.name for file in folder.iterdir() if file.suffix == ".onnx"}
    names = ("ort-cpu", "ort-cuda")
    assert files == {f"{n}{part}.onnx" for n in names for part in ("", "-encoder")}
    crossing = onnx.load(folder / "ort-cuda-encoder.onnx", load_external_data=False).graph.output
    assert {v.type.tensor_type.elem_type for v in crossing} == {onnx.TensorProto.FLOAT16}
    (ids, mask), own = padded(2, 9, "right"), np.random.default_rng(1).integers(3, 98, (2, 8))
    with lc.load(built, target="ort-cuda") as model, torch.no_grad():
        assert isinstance(model.session, CudaPair)
        given = {"encoder_input_ids": ids, "encoder_attention_mask": mask, "input_ids": own}
        found = model.run(given, ["logits"])["logits"]
        tensors = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": own}
        expected = reference(**{n: torch.from_numpy(v) for n, v in tensors.items()}).logits
    assert relative_error(found, expected.numpy()) < FP16


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_answers_as_the_cpu_does(name: str, tmp_path: Path) -> None:
    listening(name, tmp_path / "model")
    built = _built(tmp_path)
    with lc.load(built, target="ort-cpu") as wide, lc.load(built, target="ort-cuda") as half:
        for beams in (1, 3):
            both = [
                model.generate(SOURCES, max_new_tokens=6, beams=beams) for model in (wide, half)
            ]
            found, expected = ([answer.tokens for answer in answers] for answers in both)
            assert found == expected
