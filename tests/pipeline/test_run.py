"""Running passes: reports, expectations, and errors that name the pass."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_compile.errors import GateError, PassError
from lepton_compile.pipeline import NumericCheck, PipelineReport, run
from lepton_passes.body import Body
from lepton_passes.contract import SAME, LeptonPass
from lepton_passes.fusion.packed_gate_up import PackedGateUp
from lepton_passes.lowering.ort.legal_ort_cpu import LegalOrtCpu
from lepton_passes.lowering.ort.linear import LowerLinear
from tests.passes.support import load, random

TEXT = """main (int64[b, s] input_ids, int64[b, s] attention_mask) => (y) {
  x = Gather (table, input_ids)
  gt = Transpose <perm = [1, 0]> (gate)
  g = MatMul (x, gt)
  a = Relu (g)
  ut = Transpose <perm = [1, 0]> (up)
  u = MatMul (x, ut)
  y = Mul (a, u)
}"""
FEEDS = {
    "input_ids": np.array([[1, 2, 3], [4, 5, 0]]),
    "attention_mask": np.array([[1, 1, 1], [1, 1, 0]]),
}


class _Broken(LeptonPass):
    """Replaces the product by a sum."""

    name = "broken"
    summary = "broken"
    changes_numbers = True
    tolerances = {"fp32": SAME, "int8": SAME, "int4": SAME}  # noqa: RUF012

    def rewrite(self, body: Body) -> None:
        for node in body.nodes("Mul"):
            body.replace(node.outputs[0], body.emit(node, "Add", node.inputs).outputs[0])
            self.fire(body)


class _Raises(LeptonPass):
    """Fails."""

    name = "raises"
    summary = "raises"

    def rewrite(self, body: Body) -> None:
        raise KeyError("shape")


@pytest.fixture
def model() -> ir.Model:
    weights = {"table": random(50, 16), "gate": random(24, 16), "up": random(24, 16, seed=1)}
    return load(TEXT, weights)


def test_the_report_counts(model: ir.Model) -> None:
    told = []
    passes = [PackedGateUp(), LowerLinear(), LegalOrtCpu()]
    with NumericCheck(FEEDS, "fp32") as check:
        check.start(model)
        report = run(model, passes, check=check, progress=lambda *step: told.append(step))
    assert [(p.name, p.fired) for p in report.passes] == [
        ("packed-gate-up", 1),
        ("lower-linear", 1),
        ("legal-ort-cpu", 0),
    ]
    assert report.fired("gate-up") == report.fired("linear") == 1
    assert report.passes[0].error is not None
    assert report.passes[2].error is None
    assert told[0] == ("packed-gate-up", 0, 3)


def test_expected_counts(model: ir.Model) -> None:
    report = run(model, [PackedGateUp()])
    report.demand({"gate-up": 1})
    with pytest.raises(GateError, match="as often as the recipe expects") as caught:
        report.demand({"gate-up": 2, "packed-gate-up": 1})
    assert caught.value.exit_code == 3
    assert caught.value.found == "gate-up: expected 2, fired 1"


def test_a_missed_count_is_explained_by_refusals() -> None:
    same = load(TEXT.replace("(up)", "(gate)"), {"table": random(50, 16), "gate": random(24, 16)})
    report = run(same, [PackedGateUp()])
    with pytest.raises(GateError) as caught:
        report.demand({"gate-up": 1})
    assert "two projections share a weight" in (caught.value.found or "")


def test_the_pass_that_moves_the_numbers_is_named(model: ir.Model) -> None:
    with NumericCheck(FEEDS, "fp32") as check:
        check.start(model)
        report = PipelineReport()
        passes = [PackedGateUp(), _Broken(), LowerLinear()]
        with pytest.raises(PassError, match="the pass broken changed the numbers") as caught:
            run(model, passes, check=check, report=report)
    assert [p.name for p in report.passes] == ["packed-gate-up", "broken"]
    assert report.passes[1].error == caught.value.error
    assert caught.value.where is not None
    assert "(Add)" in caught.value.where
    assert "y: error" in str(caught.value.found)
    assert str(caught.value.found).endswith("(Add)")


def test_a_pass_that_fails_is_named(model: ir.Model) -> None:
    with pytest.raises(PassError, match="the pass raises failed") as caught:
        run(model, [_Raises()])
    assert "KeyError" in (caught.value.found or "")


def test_illegal_ops_are_named(model: ir.Model) -> None:
    node = ir.node("Strange", [model.graph.outputs[0]], domain="com.example")
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    with pytest.raises(PassError, match="does not pass legal-ort-cpu") as caught:
        run(model, [LegalOrtCpu()])
    assert "com.example" in (caught.value.found or "")


def test_a_graph_that_is_not_legal_says_what_lowering_declined(model: ir.Model) -> None:
    class _Declines(LeptonPass):
        """Declines every product."""

        name = "lower-nothing"
        summary = "declines"

        def rewrite(self, body: Body) -> None:
            for node in body.nodes("MatMul"):
                self.refuse(body, node, "it is a product")

    model.graph.insert_before(model.graph[0], odd := ir.node("Odd", [], domain="else"))
    model.graph.outputs.append(odd.outputs[0])
    with pytest.raises(PassError, match="does not pass legal-ort-cpu") as caught:
        run(model, [_Declines(), LegalOrtCpu()])
    assert caught.value.hint == "lower-nothing declined: it is a product"
