"""lower-cpu-opset."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from lepton_passes.lowering.ort import cpu_opset
from lepton_passes.lowering.ort.cpu_opset import OLDER, LowerCpuOpset
from lepton_passes.lowering.ort.legal_ort_cpu import LegalOrtCpu, _without_kernel
from tests.passes.support import load, ops, random, reasons, run

FUNCTION = """<domain: "own", opset_import: ["" : 24]>
places (x, boxes, rows) => (y) {
  y = RoiAlign <output_height = 2, output_width = 2> (x, boxes, rows)
}"""
ROI = """main (float[b, 1, 8, 8] x, float[k, 4] boxes, int64[k] rows) => (y) {
  y = RoiAlign <output_height = 2, output_width = 2> (x, boxes, rows)
}"""
CALLED = ROI.replace("RoiAlign <output_height = 2, output_width = 2>", "own.places") + FUNCTION
BRANCH = """main (float[b, 1, 8, 8] x, float[k, 4] boxes, int64[k] rows) => (y) {
  some = ReduceSum <keepdims = 0> (rows)
  yes = Cast <to = 9> (some)
  y = If (yes) <
    then_branch = one () => (float[k, 1, 2, 2] a) {
      a = RoiAlign <output_height = 2, output_width = 2> (x, boxes, rows)
    }, else_branch = other () => (float[k, 1, 2, 2] a) {
      a = RoiAlign <output_height = 2, output_width = 2> (x, boxes, rows)
    }>
}"""
FEEDS = {
    "x": random(1, 1, 8, 8),
    "boxes": np.float32([[0, 0, 4, 4]]),
    "rows": np.array([0]),
}


@pytest.mark.parametrize("text", [ROI, CALLED, BRANCH], ids=["main", "function", "branch"])
def test_what_has_a_kernel_at_an_older_opset_alone_runs(text: str) -> None:
    model = load(text)
    model.graph.opset_imports["own"] = 1
    legal = LegalOrtCpu()
    legal(model)
    assert set(reasons(legal)) == {"it has no CPU kernel for its form at opset 24"}
    done = LowerCpuOpset()
    done(model)
    graphs = [model.graph, *(each.graph for each in model.functions.values())]
    assert (done.fired, {g.opset_imports[""] for g in graphs}) == (1, {OLDER})
    legal(model)
    assert legal.refusals == []
    (found,) = run(model, FEEDS)
    assert found.shape == (1, 1, 2, 2)


def test_what_has_kernels_stays() -> None:
    model = load("main (float[b, s, 8] x) => (y) { y = Swish (x) }")
    done = LowerCpuOpset()
    done(model)
    assert (done.fired, done.refusals, model.graph.opset_imports[""]) == (0, [], 24)
    assert ops(model) == ["Swish"]


def test_refuses_what_the_older_opset_lacks() -> None:
    text = "main (float[b, s, 8] x) => (y) { n = RandomNormalLike (x)\n y = Swish (n) }"
    model = load(text)
    done, legal = LowerCpuOpset(), LegalOrtCpu()
    done(model)
    legal(model)
    assert reasons(done) == ["the op is newer than opset 21"]
    assert (done.fired, model.graph.opset_imports[""]) == (0, 24)
    assert reasons(legal) == ["it has no CPU kernel for its form at opset 24"]


def test_the_table_is_what_onnxruntime_has() -> None:
    """Of ops that are removed since, or are newer, nothing can be lowered."""
    names = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    older = {name for name in names if _known(name, OLDER) and not _known(name, 24)}
    assert older == cpu_opset._UP_TO_OLDER


def _known(name: str, opset: int) -> bool:
    try:
        schema = onnx.defs.get_schema(name, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return False
    return not schema.deprecated and not _without_kernel(name, opset)
