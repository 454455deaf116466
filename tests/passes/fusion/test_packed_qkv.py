"""packed-qkv."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.fusion.packed_qkv import PackedQkv
from lepton_passes.grouped import FloatCodes
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from lepton_passes.quant.weight_stored import WeightStored
from tests.passes.quant.stored import Stored, stored_in
from tests.passes.support import LAYER, check, load, ops, random, reasons

FEEDS = {"x": random(2, 3, 32), "mask": np.ones((2, 3), bool)}
ATTENTION = """ai.lepton.Attention <q_num_heads = 4, kv_num_heads = 2, scale = 0.3,
    softcap = 0.0, causal = 1, window = -1>"""


def _model(bias: str = "qkv", key_input: str = "x") -> ir.Model:
    """Two layers of one function; biases for the projections named."""
    biased = {name: f"{name} = Add ({name}0, {name}_bias)" for name in bias}
    plain = {name: f"{name} = Identity ({name}0)" for name in "qkv" if name not in bias}
    weights = [f"{name}_{kind}" for name in "qkv" for kind in ("weight", "bias")]
    calls = [", ".join(f"l{i}_{w}" for w in weights) for i in range(2)]
    text = f"""
main (float[b, s, 32] x, bool[b, s] mask) => (float[b, s, 32] y) {{
  [l0] h = ai.lepton.layer.block (x, mask, {calls[0]})
  [l1] y = ai.lepton.layer.block (h, mask, {calls[1]})
}}
{LAYER}
block (x, mask, {", ".join(weights)}) => (y) {{
  other = Relu (x)
  qt = Transpose <perm = [1, 0]> (q_weight)
  q0 = MatMul (x, qt)
  kt = Transpose <perm = [1, 0]> (k_weight)
  k0 = MatMul ({key_input}, kt)
  vt = Transpose <perm = [1, 0]> (v_weight)
  v0 = MatMul (x, vt)
  {" ".join({**biased, **plain}.values())}
  y = {ATTENTION} (q, k, v, mask)
}}"""
    rows = {"q": 32, "k": 16, "v": 16}
    arrays = {}
    for i in range(2):
        for seed, (name, n) in enumerate(rows.items()):
            arrays[f"l{i}_{name}_weight"] = random(n, 32, seed=seed + 10 * i, scale=0.3)
            arrays[f"l{i}_{name}_bias"] = random(n, seed=seed + 10 * i + 5)
    return load(text, arrays)


def _without_identities(model: ir.Model) -> ir.Model:
    from lepton_passes.cleanup.drop_identity import DropIdentity

    DropIdentity()(model)
    return model


@pytest.mark.parametrize("bias", ["", "qkv"])
def test_one_linear_layer_for_three(bias: str) -> None:
    model = _without_identities(_model(bias))
    assert check(PackedQkv(), model, FEEDS, CLOSE).fired == 2
    added = ["Add"] if bias else []
    assert ops(model, "block") == ["Transpose", "MatMul", *added, "Split", "Attention"]
    assert model.graph.initializers["l0_q_weight.qkv.weight"].shape == (64, 32)


@pytest.mark.parametrize("quantize", [WeightInt8, WeightInt4])
def test_quantized_rows_are_stacked(quantize: type[WeightInt8 | WeightInt4]) -> None:
    model = _model()
    quantize()(model)
    assert check(PackedQkv(), model, FEEDS, CLOSE).fired == 2
    assert ops(model, "block")[:3] == ["DequantizeLinear", "Transpose", "MatMul"]
    assert len(model.graph.initializers) == 6


def test_zero_points_are_stacked() -> None:
    model, rows = _model(), {"q": 32, "k": 16, "v": 16}
    names = [f"l{layer}_{name}_weight" for layer in range(2) for name in rows]
    stored = {n: Stored.made(rows[n[3]], 32, 16, seed=i) for i, n in enumerate(names)}
    WeightStored()(stored_in(model, **stored))
    assert check(PackedQkv(), model, FEEDS, CLOSE).fired == 2
    assert ops(model, "block")[:3] == ["DequantizeLinear", "Transpose", "MatMul"]
    zero = model.graph.initializers["l1_q_weight.qkv.weight_zero"].const_value
    assert zero is not None
    wanted = np.concatenate([stored[name].shifts for name in names[3:]])
    np.testing.assert_array_equal(zero.numpy().astype(int), wanted)


def test_floats_and_offsets_are_stacked() -> None:
    for form in ("floats", "offsets"):
        model, rows = _model(), {"q": 32, "k": 16, "v": 16}
        names = [f"l{layer}_{name}_weight" for layer in range(2) for name in rows]
        stored = {
            n: Stored.made(rows[n[3]], 32, 16, seed=i, form=form)  # type: ignore[arg-type]
            for i, n in enumerate(names)
        }
        WeightStored()(stored_in(model, **stored))
        assert check(PackedQkv(), model, FEEDS, CLOSE).fired == 2
        found = {name: value.const_value for name, value in model.graph.initializers.items()}
        if form == "floats":
            assert isinstance(found["l1_q_weight.qkv.weight_q"], FloatCodes)
        else:
            assert not isinstance(found["l1_q_weight.qkv.weight_q"], FloatCodes)
            offsets = found["l1_q_weight.qkv.weight_offset"]
            assert offsets is not None
            wanted = np.concatenate([stored[name].shifts for name in names[3:]])
            np.testing.assert_array_equal(offsets.numpy()[:, :, 0], wanted)


def test_refuses_another_input() -> None:
    done = check(PackedQkv(), _model(key_input="other"), FEEDS, CLOSE)
    assert set(reasons(done)) == {"the projections read different inputs"}


def test_refuses_what_the_model_gives_out() -> None:
    layers = " ".join(
        f"{name}t = Transpose <perm = [1, 0]> ({name}_w) {name} = MatMul (x, {name}t)"
        for name in "qkv"
    )
    text = f"""main (float[b, s, 32] x, bool[b, s] mask) => (y, k) {{
      {layers} y = {ATTENTION} (q, k, v, mask) }}"""
    rows = {"q_w": 32, "k_w": 16, "v_w": 16}
    model = load(text, {name: random(n, 32, scale=0.3) for name, n in rows.items()})
    done = check(PackedQkv(), model, FEEDS, CLOSE)
    assert (done.fired, reasons(done)) == (0, ["a projection is an output"])


def test_refuses_a_missing_bias() -> None:
    done = check(PackedQkv(), _without_identities(_model("qv")), FEEDS, CLOSE)
    assert set(reasons(done)) == {"only some of the projections have a bias"}
    assert done.refusals[0].layers == ("l0", "l1")


def test_refuses_other_formats() -> None:
    model = _model()
    WeightInt8(lambda name, _: (8, None) if "_k_" in name else None)(model)
    done = check(PackedQkv(), model, FEEDS, CLOSE)
    assert set(reasons(done)) == {"the projections are stored in different formats"}


def _cached(past: str = "past_key_values.0") -> ir.Model:
    """Attention of a model's own over a cache, whose keys and values are put behind the past."""
    model = load(
        """main (float[b, s, 32] x, float[b, 4, p, 8] pk, float[b, 4, p, 8] pv)
          => (float[b, 4, s, 8] y, float[b, 4, t, 8] key, float[b, 4, t, 8] value) {
      heads = Constant <value_ints = [0, 0, 4, 8]> ()
      qt = Transpose <perm = [1, 0]> (q_weight)  q0 = MatMul (x, qt)
      kt = Transpose <perm = [1, 0]> (k_weight)  k0 = MatMul (x, kt)
      vt = Transpose <perm = [1, 0]> (v_weight)  v0 = MatMul (x, vt)
      q1 = Reshape (q0, heads)  k1 = Reshape (k0, heads)  v1 = Reshape (v0, heads)
      q = Transpose <perm = [0, 2, 1, 3]> (q1)
      k = Transpose <perm = [0, 2, 1, 3]> (k1)
      v = Transpose <perm = [0, 2, 1, 3]> (v1)
      key = Concat <axis = 2> (pk, k)
      value = Concat <axis = 2> (pv, v)
      y = Attention <scale = 0.3> (q, key, value)
    }""",
        {f"{name}_weight": random(32, 32, seed=seed) for seed, name in enumerate("qkv")},
    )
    for value, kind in zip(model.graph.inputs[1:], ("key", "value"), strict=True):
        value.name = f"{past}.{kind}"
    return model


def test_behind_a_past() -> None:
    model = _cached()
    feeds = {"x": FEEDS["x"]} | {
        f"past_key_values.0.{kind}": random(2, 4, 5, 8, seed=7) for kind in ("key", "value")
    }
    assert check(PackedQkv(), model, feeds, CLOSE).fired == 1
    assert ops(model).count("MatMul") == 1


def test_leaves_other_sums_of_two_alone() -> None:
    packed = PackedQkv()
    packed(_cached(past="other"))
    assert (packed.fired, reasons(packed)) == (0, [])
