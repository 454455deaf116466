"""An engine in a folder: described as a loader needs it, or nothing at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import psutil
import pytest

from lepton_compile.engines.contract import EngineJob
from lepton_compile.engines.tensorrt.build import build_engine
from lepton_compile.engines.tensorrt.flavour import RTX, TRT
from lepton_compile.engines.tensorrt.process import CHILD
from lepton_compile.errors import EngineError, LeptonError, RecipeError
from lepton_compile.recipe import load_recipe
from lepton_passes.dtypes import fill_types
from tests.engines.tensorrt.orders import graph

pytest.importorskip("tensorrt_rtx")

TEXT = "main (float16[batch, sequence, 64] x) => (float16[batch, sequence, 64] y) {{ {} }}"
RELU = "y = Relu (x)"


def job(folder: Path, text: str = RELU, model: ir.Model | None = None, **options: Any) -> EngineJob:
    recipe = load_recipe({"model": "./model", "target": "trt-rtx", **options})
    ranges = {"batch": (1, 4), "sequence": (1, 16)}
    return EngineJob(model or graph(TEXT.format(text)), folder, recipe, ranges)


def test_what_a_loader_has_to_know(tmp_path: Path) -> None:
    built = build_engine(job(tmp_path), RTX)
    assert [each.name for each in tmp_path.iterdir()] == [built.model] == ["model.plan"]
    assert built.requires[RTX.package] == f"=={built.report['version']}"
    details = built.details
    assert details["io"]["inputs"] == [
        {"name": "x", "dtype": "float16", "shape": ["batch", "sequence", 64]}
    ]
    (profile,) = details["profiles"]
    assert (profile["name"], profile["max"]) == ("all", {"x": [4, 16, 64]})
    assert details["compute_capabilities"] == ["portable"]
    assert (details["attention"], details["cache"]) == (None, None)
    assert built.report["counts"] == {"ACTIVATION": 1}
    assert built.report["plan_bytes"] == (tmp_path / "model.plan").stat().st_size


def test_a_portable_plan_in_fp8_claims_no_gpu_below_8_9(tmp_path: Path) -> None:
    text = """one = Constant <value_float = 0.5> ()
        scale = Cast <to = 10> (one)
        q = QuantizeLinear <output_dtype = 17> (x, scale)
        y = DequantizeLinear (q, scale)"""
    work = job(tmp_path, text)
    fill_types(work.model)
    built = build_engine(work, RTX)
    assert built.details["compute_capabilities"] == ["8.9+"]


def refused(folder: Path, work: EngineJob, words: str) -> LeptonError:
    with pytest.raises((EngineError, RecipeError), match=words) as raised:
        build_engine(work, RTX)
    assert list(folder.iterdir()) == []
    return raised.value


def test_a_refusal_of_the_parser_leaves_nothing(tmp_path: Path) -> None:
    error = refused(tmp_path, job(tmp_path, "y = com.microsoft.QuickGelu (x)"), "QuickGelu")
    assert error.where == "QuickGelu"


def test_a_gpu_that_is_not_known_leaves_nothing(tmp_path: Path) -> None:
    refused(tmp_path, job(tmp_path, compute_capabilities=["9.0"]), "no engine for compute")
    refused(tmp_path, job(tmp_path, compute_capabilities=["sm_89"]), "is no compute capability")


def test_a_ceiling_of_memory_leaves_nothing(tmp_path: Path) -> None:
    refused(tmp_path, job(tmp_path, max_memory="100MB"), "more memory than its ceiling")


def test_an_input_that_is_dropped_leaves_nothing(tmp_path: Path) -> None:
    text = """main (float16[batch, 4, sequence, 64] x, int32[batch] n) => (float16[batch, 4,
        sequence, 64] y) { y = trt.TRT_Attention (x, x, x, "", "", "", "", n) }"""
    error = refused(tmp_path, job(tmp_path, model=graph(text)), "dropped an input")
    assert error.where == "TRT_Attention"


@pytest.mark.parametrize("at", ["loading the library", "reading the graph", "writing the plan"])
def test_a_cancelled_build_leaves_nothing(tmp_path: Path, at: str) -> None:
    def step(what: str, done: int, total: int) -> None:
        if what.startswith(at):
            raise KeyboardInterrupt

    work = job(tmp_path)
    stopped = EngineJob(work.model, work.folder, work.recipe, work.ranges, step=step)
    with pytest.raises(KeyboardInterrupt):
        build_engine(stopped, RTX)
    assert list(tmp_path.iterdir()) == []
    assert not [p for p in psutil.Process().children() if CHILD in " ".join(p.cmdline())]


def test_a_library_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is not installed") as raised:
        build_engine(job(tmp_path), replace(TRT, package="tensorrt-that-nobody-has"))
    assert raised.value.where == "target: trt"
    assert raised.value.hint == TRT.install
    assert list(tmp_path.iterdir()) == []
