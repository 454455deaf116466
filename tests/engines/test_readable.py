"""A graph is read before it is an engine; its weights need not be there for that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from lepton_compile.engines.contract import EngineJob
from lepton_compile.engines.ort_cuda.build import build
from lepton_compile.engines.readable import check_readable
from lepton_compile.errors import EngineError
from lepton_compile.recipe import Recipe
from tests.passes.support import load, random

TEXT = "main (float16[n, 64] x) => (float16[n, 64] y) { y = MatMul (x, w) }"


def _built(folder: Path, dtype: type) -> None:
    folder.mkdir()
    model = load(TEXT, {"w": random(64, 64).astype(dtype)})
    build(EngineJob(model, folder, Recipe(model="tiny"), {}))


def test_types_that_do_not_agree_are_no_engine(tmp_path: Path) -> None:
    _built(tmp_path / "halves", np.float16)
    with pytest.raises(EngineError, match="does not read the graph") as caught:
        _built(tmp_path / "both", np.float32)
    assert "bound to different types" in str(caught.value.found)
    assert caught.value.where == "model.onnx"


def test_weights_are_not_read(tmp_path: Path) -> None:
    _built(tmp_path / "made", np.float16)
    (tmp_path / "made/weights.bin").unlink()
    check_readable(tmp_path / "made/model.onnx")


def test_an_op_of_a_newer_onnxruntime_is_let_pass(tmp_path: Path) -> None:
    model = load("main (float[n] x) => (float[n] y) { y = com.microsoft.OfTomorrow (x) }")
    ir.save(model, tmp_path / "model.onnx")
    check_readable(tmp_path / "model.onnx")
