"""lower-experts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE, ROUNDING, LeptonPass, Tolerance
from lepton_passes.dtypes import fill_types
from lepton_passes.emulation import Emulation
from lepton_passes.lowering.half_precision import LowerHalfPrecision
from lepton_passes.lowering.ort.experts import LowerExperts
from lepton_passes.lowering.ort.legal_ort_cpu import LegalOrtCpu
from lepton_passes.lowering.ort.legal_ort_cuda import LegalOrtCuda
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from lepton_passes.quant.weight_stored import WeightStored
from tests.passes.experts import EXPERTS, INNER, WIDTH, Settings, experts, routed
from tests.passes.quant.stored import Stored, stored_in
from tests.passes.support import assert_close, check, ops, random, reasons, run

ALL = [Settings(), Settings(interleaved=1), Settings(1.702, 1.0, 2.0, biases=True)]
# What activations in 8 bits cost, of which 4 bits have one scale a block.
ROUNDED = Tolerance(error=0.02, cosine=0.9999)


class BlockedInt8(WeightInt8):
    """As in a decoder."""

    def group_for(self, columns: int, group: int | None) -> int | None:
        return 32


def _with_zeros(settings: Settings, bits: int) -> ir.Model:
    model, _ = experts(settings)
    gate_up = Stored.made(EXPERTS * 2 * INNER, WIDTH, bits=bits)
    stored_in(model, gu=gate_up, dn=Stored.made(EXPERTS * WIDTH, INNER, bits=bits, seed=1))
    WeightStored()(model)
    return model


def _node(model: ir.Model, op_type: str) -> ir.Node:
    graphs = (f.graph for f in model.functions.values())
    return next(n for graph in graphs for n in graph if n.op_type == op_type)


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("settings", ALL, ids=str)
def test_plain_weights(settings: Settings, tokens: int) -> None:
    model, _ = experts(settings)
    done = check(LowerExperts(), model, routed(tokens, EXPERTS - 1), CLOSE)
    assert (done.fired, reasons(done)) == (1, [])
    assert [op for op in ops(model, "block") if op in ("Experts", "MoE", "Loop")] == ["MoE"]
    sizes = [tuple(v.shape) for v in _node(model, "MoE").inputs[2:5:2]]
    assert sizes == [(EXPERTS, 2 * INNER, WIDTH), (EXPERTS, WIDTH, INNER)]


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize("settings", ALL, ids=str)
@pytest.mark.parametrize(
    ("quantize", "level", "tolerance", "group"),
    [
        (WeightInt4(), 1, CLOSE, 32),
        (WeightInt4(), 4, ROUNDED, 32),
        (WeightInt8(), 4, CLOSE, 0),
        (BlockedInt8(), 4, ROUNDED, 32),
    ],
    ids=["int4", "int4-level4", "int8-rows", "int8-blocks"],
)
def test_rounded_weights(
    quantize: LeptonPass,
    level: int,
    tolerance: Tolerance,
    group: int,
    settings: Settings,
    tokens: int,
) -> None:
    model, _ = experts(settings)
    quantize(model)
    assert quantize.fired == 2
    done = check(LowerExperts(level), model, routed(tokens), tolerance)
    assert (done.fired, reasons(done)) == (1, [])
    node = _node(model, "QMoE")
    bits = node.attributes.get_int("expert_weight_bits")
    assert node.attributes.get_int("block_size", 0) == group
    sizes = [tuple(v.shape) for v in (node.inputs[2], node.inputs[5]) if v is not None]
    assert sizes == [
        (EXPERTS, 2 * INNER, WIDTH * bits // 8),
        (EXPERTS, WIDTH, INNER * bits // 8),
    ]
    legal = LegalOrtCpu()
    legal(model)
    assert reasons(legal) == []


@pytest.mark.parametrize("settings", [Settings(), Settings(interleaved=1)], ids=str)
@pytest.mark.parametrize(
    ("bits", "level", "tolerance"), [(4, 1, CLOSE), (4, 4, ROUNDED), (8, 4, ROUNDED)]
)
def test_zero_points_go_along(
    bits: int, level: int, tolerance: Tolerance, settings: Settings
) -> None:
    model = _with_zeros(settings, bits)
    done = check(LowerExperts(level), model, routed(7), tolerance)
    assert (done.fired, reasons(done)) == (1, [])
    zeros = [tuple(v.shape) for v in _node(model, "QMoE").inputs[11:13] if v is not None]
    assert zeros == [(EXPERTS, 2 * INNER, bits // 8 or 1), (EXPERTS, WIDTH, 2 * bits // 8)]


@pytest.mark.parametrize("settings", ALL, ids=str)
def test_for_a_gpu_qmoe_is_told_scores(settings: Settings) -> None:
    """Its own weights of experts are others; the CPU's kernel takes the same form."""
    model, _ = experts(settings, 64, 128)
    WeightInt4()(model)
    feeds = {**routed(7), "x": random(7, 64)}
    feeds["s"] = feeds["s"] * 0.7  # need not add up to one
    done = check(LowerExperts(0, raw=True), model, feeds, CLOSE)
    assert (done.fired, reasons(done)) == (1, [])
    node = _node(model, "QMoE")
    assert node.attributes.get_int("weights_prepacked") == 0
    assert len(node.inputs) <= 8, "no router_weights"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: _with_zeros(Settings(), 4), "gate_up and down have zero points"),
        (lambda: _rounded(experts(Settings())[0]), "columns are no multiple of 64"),
    ],
)
def test_what_is_widened_for_a_gpu(model: Callable[[], ir.Model], reason: str) -> None:
    made = model()
    done = check(LowerExperts(0, raw=True), made, routed(5), CLOSE)
    assert (done.fired, reasons(done)) == (1, [f"{reason}; both are widened"])
    assert [op for op in ops(made, "block") if op in ("MoE", "QMoE")] == ["MoE"]


def _rounded(model: ir.Model) -> ir.Model:
    WeightInt4()(model)
    return model


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16])
@pytest.mark.parametrize("quantize", [None, WeightInt4()], ids=["plain", "int4"])
def test_experts_in_half_precision(dtype: ir.DataType, quantize: LeptonPass | None) -> None:
    model, _ = experts(Settings(biases=True), 64, 128)
    if quantize is not None:
        quantize(model)
    feeds = {**routed(7), "x": random(7, 64)}
    before = run(model, feeds)
    LowerHalfPrecision(dtype, islands=False)(model)
    done = LowerExperts(0, raw=True)
    done(model)
    assert (done.fired, reasons(done)) == (1, [])
    fill_types(model)
    node = _node(model, "MoE" if quantize is None else "QMoE")
    halves = {v.dtype for v in node.inputs if v is not None}
    assert halves == {dtype} | ({ir.DataType.UINT8} if quantize is not None else set())
    assert_close(before, run(Emulation()(model), feeds), ROUNDING[dtype])
    legal = LegalOrtCuda()
    legal(model)
    assert reasons(legal) == []


def test_zero_points_are_widened_with_the_rest() -> None:
    model = _with_zeros(Settings(activation="gelu"), 4)
    assert check(LowerExperts(), model, routed(5), CLOSE).fired == 0
    assert "DequantizeLinear" not in ops(model, "block")


@pytest.mark.parametrize(
    ("activation", "gated"),
    [("gelu", True), ("gelu_tanh", True), ("relu", True), ("relu2", False), ("swish", False)],
)
@pytest.mark.parametrize("quantize", [None, WeightInt4()], ids=["plain", "int4"])
def test_gates_without_a_kernel_stay_in_the_body(
    activation: str, gated: bool, quantize: LeptonPass | None
) -> None:
    model, _ = experts(Settings(activation=activation, gated=gated))
    kept = ""
    if quantize is not None:
        quantize(model)
        kept = "; the experts are widened"
    done = check(LowerExperts(), model, routed(5), CLOSE)
    place = "as the gate" if gated else "without a gate"
    reason = f"onnxruntime has no kernel with {activation} {place}{kept}"
    assert (done.fired, reasons(done)) == (0, [reason])
    assert [op for op in ops(model, "block") if op in ("Experts", "MoE", "QMoE")] == ["Experts"]
    assert "DequantizeLinear" not in ops(model, "block")
    legal = LegalOrtCpu()
    legal(model)
    assert reasons(legal) == []


def test_shares_need_not_add_up_to_one() -> None:
    model, _ = experts(Settings())
    LowerExperts()(model)
    feeds = routed(3)
    twice = {**feeds, "s": 2 * feeds["s"]}
    np.testing.assert_allclose(run(model, twice)[0], 2 * run(model, feeds)[0], atol=1e-6)


def test_a_share_of_nothing_is_nothing() -> None:
    """What a Softmax that underflows gives: no expert, and no infinity."""
    for quantize in (None, WeightInt8()):
        model, _ = experts(Settings())
        if quantize is not None:
            quantize(model)
        LowerExperts()(model)
        feeds = routed(3)
        feeds["s"][0] = 0
        feeds["s"][1, 1] = 0
        found = run(model, feeds)[0]
        assert np.isfinite(found).all()
        assert (found[0] == 0).all()
        assert (found[1] != 0).any()


def test_two_formats_are_widened_and_reported() -> None:
    model, _ = experts(Settings())
    WeightInt4(lambda name, _: (4, 32) if name == "gu" else None)(model)
    done = check(LowerExperts(), model, routed(5), CLOSE)
    assert reasons(done) == ["gate_up and down are in two formats; both are widened"]
    assert done.fired == 1
    assert _node(model, "MoE")
    assert not [op for op in ops(model, "block") if op == "DequantizeLinear"]


def test_both_matrices_get_the_group_that_divides_both() -> None:
    model, _ = experts(Settings(), inner=48)  # 16 divides it, 32 does not
    WeightInt4()(model)
    done = check(LowerExperts(1), model, routed(5), CLOSE)
    assert (done.fired, reasons(done)) == (1, [])
    assert _node(model, "QMoE").attributes.get_int("block_size") == 16


def test_refuses_matrices_that_are_computed() -> None:
    model, _ = experts(Settings())
    layer = next(f for f in model.functions.values() if f.name == "block")
    node = next(n for n in layer if n.op_type == "Experts")
    turned = ir.node("Identity", [node.inputs[3]])
    layer.graph.insert_before(node, turned)
    node.replace_input_with(3, turned.outputs[0])
    done = check(LowerExperts(), model, routed(5), CLOSE)
    assert (done.fired, reasons(done)) == (0, ["its matrices are no constants"])
