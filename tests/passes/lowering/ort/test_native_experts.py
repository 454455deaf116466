"""lower-native-experts."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from lepton_passes.contract import LeptonPass, Tolerance
from lepton_passes.grouped import FloatCodes, Form
from lepton_passes.lowering.ort.legal_ort_cpu import LegalOrtCpu
from lepton_passes.lowering.ort.native_experts import LowerNativeExperts
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from lepton_passes.quant.weight_stored import WeightStored
from lepton_passes.tensors import StreamedTensor
from tests.passes.experts import EXPERTS, INNER, WIDTH, Settings, experts, routed
from tests.passes.quant.stored import Stored, stored_in
from tests.passes.support import check, ops, reasons
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

# What activations cost: 8 bits with one scale a block beside 4 bits, 15 beside 8. Two layers of
# SwiGLU round twice what Gelu would have taken to nothing half of the time.
# Activations of both have 8 bits.
SWIGLU = {bits: Tolerance(error=0.02, cosine=0.9998) for bits in (4, 8)}
ROUNDED = {**SWIGLU, 4: Tolerance(error=0.02, cosine=0.9999)}


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


def _stored(settings: Settings, bits: int, form: Form) -> ir.Model:
    model, _ = experts(settings)
    gate_up = Stored.made(EXPERTS * 2 * INNER, WIDTH, bits=bits, form=form)
    down = Stored.made(EXPERTS * WIDTH, INNER, bits=bits, form=form, seed=1)
    stored_in(model, gu=gate_up, dn=down)
    WeightStored()(model)
    return model


@pytest.mark.parametrize("settings", [Settings(), Settings(interleaved=1)])
@pytest.mark.parametrize(
    ("bits", "form"), [(4, "zeros"), (4, "offsets"), (4, "floats"), (8, "zeros")]
)
def test_what_a_checkpoint_has_goes_along(bits: int, form: Form, settings: Settings) -> None:
    model = _stored(settings, bits, form)
    done = check(LowerNativeExperts(), model, routed(7, EXPERTS - 1), SWIGLU[bits])
    assert (done.fired, reasons(done)) == (1, [])
    assert ops(model, "block") == ["QuantizedExperts"]
    (node,) = (n for f in model.functions.values() for n in f)
    found = [node.attributes.get_int(name) for name in ("offsets", "down_offsets", "floats")]
    assert found == ([0, 0, 1] if form == "floats" else [1, 1, 0])
    assert node.attributes.get_int("bits") == bits


def test_floats_of_one_matrix_alone_take_8_bits() -> None:
    model, _ = experts(Settings())
    gate_up = Stored.made(EXPERTS * 2 * INNER, WIDTH, form="floats")
    stored_in(model, gu=gate_up, dn=Stored.made(EXPERTS * WIDTH, INNER, form="floats", seed=1))
    WeightStored()(model)
    (value,) = (v for name, v in model.graph.initializers.items() if name.endswith("dn_q"))
    codes = value.const_value
    assert isinstance(codes, FloatCodes)
    value.const_value = StreamedTensor(codes.name or "", codes.dtype, codes.shape, codes.rows)
    done = check(LowerNativeExperts(), model, routed(7, EXPERTS - 1), SWIGLU[8])
    assert (done.fired, reasons(done)) == (1, [])
    (node,) = (n for f in model.functions.values() for n in f)
    assert [node.attributes.get_int(name) for name in ("bits", "floats")] == [8, 0]


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
