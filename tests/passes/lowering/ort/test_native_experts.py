"""lower-native-experts."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.contract import LeptonPass, Tolerance
from lepton_passes.lowering.ort.legal_ort_cpu import LegalOrtCpu
from lepton_passes.lowering.ort.native_experts import LowerNativeExperts
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from lepton_passes.quant.weight_zero_points import WeightZeroPoints
from tests.passes.experts import EXPERTS, INNER, WIDTH, Settings, experts, routed
from tests.passes.quant.zero_points import Stored, stored_in
from tests.passes.support import check, ops, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

# What activations cost: 8 bits with one scale a block beside 4 bits, 15 beside 8. Two layers of
# SwiGLU round twice what Gelu would have taken to nothing half of the time.
ROUNDED = {4: Tolerance(error=0.02, cosine=0.9999), 8: Tolerance(error=1e-3, cosine=0.99999)}
SWIGLU = {**ROUNDED, 4: Tolerance(error=0.02, cosine=0.9998)}


class BlockedInt8(WeightInt8):
    """As in a decoder."""

    def group_for(self, columns: int, group: int | None) -> int | None:
        return 32


def _lowered(model: ir.Model) -> LeptonPass:
    lowering = LowerNativeExperts()
    lowering(model)
    return lowering


@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize(
    ("activation", "gated"),
    [("gelu", True), ("gelu_tanh", True), ("swish", True), ("relu2", False), ("swish", False)],
)
@pytest.mark.parametrize(
    ("quantize", "groups"),
    [(WeightInt4(), (32, 32)), (WeightInt8(), (WIDTH, INNER)), (BlockedInt8(), (32, 32))],
    ids=["int4", "int8-rows", "int8-blocks"],
)
def test_one_kernel(
    quantize: LeptonPass, groups: tuple[int, int], activation: str, gated: bool, tokens: int
) -> None:
    model, _ = experts(Settings(activation=activation, gated=gated))
    quantize(model)
    bits = 4 if isinstance(quantize, WeightInt4) else 8
    tolerance = (SWIGLU if activation == "swish" else ROUNDED)[bits]
    done = check(LowerNativeExperts(), model, routed(tokens, EXPERTS - 1), tolerance)
    assert (done.fired, reasons(done)) == (1, [])
    assert ops(model, "block") == ["QuantizedExperts"]
    node = next(n for f in model.functions.values() for n in f if n.op_type == "QuantizedExperts")
    found = [node.attributes.get_int(n) for n in ("bits", "block_size", "down_block_size")]
    assert found == [bits, *groups]
    legal = LegalOrtCpu()
    legal(model)
    assert reasons(legal) == []


@pytest.mark.parametrize(
    "settings",
    [
        Settings(alpha=1.702, beta=1.0, limit=0.8, interleaved=1, biases=True),  # GPT-OSS
        Settings(limit=0.5, biases=True),
        Settings(activation="gelu", interleaved=1),
    ],
)
@pytest.mark.parametrize("quantize", [WeightInt4(), BlockedInt8()], ids=["int4", "int8"])
def test_gates_of_several_parts(quantize: LeptonPass, settings: Settings) -> None:
    model, _ = experts(settings)
    quantize(model)
    bits = 4 if isinstance(quantize, WeightInt4) else 8
    done = check(LowerNativeExperts(), model, routed(7, EXPERTS - 1), ROUNDED[bits])
    assert (done.fired, reasons(done)) == (1, [])
    assert ops(model, "block") == ["QuantizedExperts"]


def _shifted(settings: Settings, bits: int, *, offsets: bool) -> ir.Model:
    model, _ = experts(settings)
    gate_up = Stored.made(EXPERTS * 2 * INNER, WIDTH, bits=bits, offsets=offsets)
    down = Stored.made(EXPERTS * WIDTH, INNER, bits=bits, offsets=offsets, seed=1)
    stored_in(model, gu=gate_up, dn=down)
    WeightZeroPoints()(model)
    return model


@pytest.mark.parametrize("settings", [Settings(), Settings(interleaved=1)])
@pytest.mark.parametrize(("bits", "offsets"), [(4, False), (4, True), (8, False)])
def test_zero_points_and_offsets_go_along(bits: int, offsets: bool, settings: Settings) -> None:
    model = _shifted(settings, bits, offsets=offsets)
    done = check(LowerNativeExperts(), model, routed(7, EXPERTS - 1), SWIGLU[bits])
    assert (done.fired, reasons(done)) == (1, [])
    assert ops(model, "block") == ["QuantizedExperts"]
    (node,) = (n for f in model.functions.values() for n in f)
    assert node.attributes.get_int("offsets") == node.attributes.get_int("down_offsets") == 1


@pytest.mark.parametrize("activation", ["swish", "gelu"])
def test_fp32_is_left_to_onnxruntime(activation: str) -> None:
    model, _ = experts(Settings(activation=activation))
    done = _lowered(model)
    assert (done.fired, reasons(done)) == (0, [])


@pytest.mark.parametrize(
    ("settings", "quantize", "inner", "reason"),
    [
        (Settings(activation="relu"), WeightInt4(), INNER, "the kernel has no relu"),
        (
            Settings(activation="gelu", limit=2.0),
            WeightInt4(),
            INNER,
            "the kernel has a factor, a limit and an offset in the gate of SwiGLU alone",
        ),
        (
            Settings(activation="gelu"),
            WeightInt4(lambda name, _: (4, 32) if name == "gu" else None),
            INNER,
            "gate_up and down are in two formats",
        ),
        (
            Settings(activation="gelu"),
            WeightInt4(),
            48,
            "groups of 16 columns are no multiple of 32",
        ),
        (Settings(activation="gelu"), WeightInt8(), 40, "40 columns are no multiple of 16"),
    ],
)
def test_refuses(settings: Settings, quantize: LeptonPass, inner: int, reason: str) -> None:
    model, _ = experts(settings, inner=inner)
    quantize(model)
    done = _lowered(model)
    assert (done.fired, reasons(done)) == (0, [reason])
    assert "Experts" in ops(model, "block")
