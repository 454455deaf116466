"""Vision-language models, with the CPU standing for the device."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from PIL import Image

import lepton_compile as lc
from lepton_compile.errors import RecipeError
from lepton_compile.runtime.loader_seer import Seer
from tests.export.harness import relative_error
from tests.pictured import ASKS, GRIDS, Theirs, pictures, saved
from tests.pictured_models import AXED, GEMMA4

HALVES = {"fp16": (onnx.TensorProto.FLOAT16, 0.02), "bf16": (onnx.TensorProto.BFLOAT16, 0.15)}

pytestmark = pytest.mark.usefixtures("stand_in")


def _seen() -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in pictures(2)]


@pytest.mark.parametrize("kind", ["smolvlm", "llava", "internvl", *AXED, GEMMA4[0], "mistral3"])
def test_both_parts_in_half_precision(kind: str, tmp_path: Path) -> None:
    source, both = saved(kind, tmp_path / "model"), ["ort-cpu", "ort-cuda"]
    how = {"compute": "fp16", "verify": False, "check": False}
    how["passes"] = {"disable": ["lower-cuda-head-norm"]}  # the CPU's kernel has no norms inside
    built = lc.build(model=str(source), target=both, output=tmp_path / "out", **how).path
    crossing = onnx.load(built / "engines/ort/ort-cuda-encoder.onnx", load_external_data=False)
    (value,) = crossing.graph.output
    assert value.type.tensor_type.elem_type == HALVES["fp16"][0]
    text = f"w20 {ASKS[kind]} w7 {ASKS[kind]} w8 w9"
    expected = Theirs(kind, source).logits(text, _seen())
    with lc.load(built, target="ort-cpu") as wide, lc.load(built, target="ort-cuda") as half:
        assert isinstance(half.session, Seer)
        row = half.generate(text, images=_seen(), max_new_tokens=6)
        if kind not in GRIDS:  # of whose pictures run() takes one
            given = {"input_ids": [row.ids], "encoder_pixel_values": half.pixels(_seen())}
            assert relative_error(half.run(given)["logits"][0], expected) < HALVES["fp16"][1]
        texts, images = [text, "w9 w10", f"{ASKS[kind]} w3"], [_seen(), [], _seen()[:1]]
        asked = {"images": images, "max_new_tokens": 6}
        answers = [model.generate(texts, **asked) for model in (wide, half)]
        found, wanted = ([each.tokens for each in rows] for rows in answers)
        assert found == wanted
        assert row.tokens == found[0]


def test_pictures_cross_in_bfloat16(tmp_path: Path) -> None:
    """As the bits that numpy has of them."""
    source = saved("llava", tmp_path / "model")
    how = {"compute": "bf16", "verify": False, "check": False, "target": "ort-cuda"}
    built = lc.build(model=str(source), output=tmp_path / "out", **how).path
    file = built / "engines/ort-cuda/encoder.onnx"
    (value,) = onnx.load(file, load_external_data=False).graph.output
    assert value.type.tensor_type.elem_type == HALVES["bf16"][0]
    # No provider on a CPU opens it: what it says of itself is all that the loader asks first.
    said = SimpleNamespace(name=value.name, type="tensor(bfloat16)", shape=["tokens", 64])
    double = SimpleNamespace(get_outputs=lambda: [said], run_with_iobinding=None)
    seer = Seer(double, double, {})
    assert seer.nothing.dtype == "uint16"
    made = seer.value(np.array([[0x3F80, 0x4000]], "uint16"))  # 1 and 2
    assert (made.element_type(), made.shape()) == (HALVES["bf16"][0], [1, 2])


@pytest.mark.parametrize("kind", ["gemma3", GEMMA4[1]])
def test_pictures_whose_tokens_see_each_other_are_for_the_cpu(kind: str, tmp_path: Path) -> None:
    source = saved(kind, tmp_path / "model")
    with pytest.raises(RecipeError, match="on a CPU where tokens of a picture see each other"):
        lc.build(model=str(source), target="ort-cuda", output=tmp_path / "out")
