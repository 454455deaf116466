"""lower-mask-column."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.catalog import CATALOG
from lepton_passes.contract import CLOSE, SAME
from lepton_passes.lowering.ort.mask_column import LONG, LowerMaskColumn
from lepton_passes.origin import mark_file
from lepton_passes.settings import Settings
from tests.passes.support import LAYER, check, load, ops, random, reasons, run

MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0]])
FEEDS = {**{n: random(2, 6, 16, seed=i) for i, n in enumerate("qkv")}, "mask": MASK}
COLUMN = ["Cast", "Where", "Unsqueeze", "Expand"]
WIDENED = ["Reshape", "Reshape", "Pad", "Concat", "Reshape", "Reshape", "MultiHeadAttention"]


def _model(keys: str = "s", order: int = 0, bias: str = "", of: str = "float") -> ir.Model:
    """Two layers with one mask; values are twice as wide as keys."""
    given = "q, k, w, , mask" + (", bias" if bias else "")
    more = f", {of}[1, 1, s, s] bias" if bias else ""
    return load(
        f"""main ({of}[b, s, 16] q, {of}[b, {keys}, 16] k, {of}[b, {keys}, 16] v,
              int64[b, {keys}] mask{more}) => ({of}[b, s, 32] y) {{
          m = Cast <to = 6> (mask)
          [one] h = ai.lepton.layer.block (q, k, v, m{", bias" if bias else ""})
          [two] y = ai.lepton.layer.block (q, k, v, m{", bias" if bias else ""})
        }}
        {LAYER}
        block (q, k, v, mask{", bias" if bias else ""}) => (y) {{
          w = Concat <axis = -1> (v, v)
          y = com.microsoft.MultiHeadAttention <num_heads = 4, scale = 0.4,
            unidirectional = {order}> ({given})
        }}"""
    )


@pytest.mark.parametrize("keys", ["s", "t"])
def test_padding_is_said_by_keys(keys: str) -> None:
    model = _model(keys)
    assert check(LowerMaskColumn(), model, FEEDS, CLOSE).fired == 2
    found = [op for op in ops(model, "block") if op not in ("Constant", "Concat")]
    assert sorted(found) == sorted(op for op in WIDENED if op != "Concat")
    here = [op for op in ops(model) if op in COLUMN]
    assert here == ["Cast", *COLUMN]  # once for both layers, behind the mask's own cast


def test_a_row_of_padding_alone_is_finite() -> None:
    model, feeds = _model(), {**FEEDS, "mask": np.array([[1] * 6, [0] * 6])}
    (before,) = run(model, feeds)
    LowerMaskColumn()(model)
    (after,) = run(model, feeds)
    assert np.isfinite(after).all()
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)


def test_refuses_few_keys() -> None:
    done = check(LowerMaskColumn(), _model("6"), FEEDS, SAME)
    assert reasons(done) == ["there are 6 keys, which take little memory"]


def test_refuses_an_order_of_tokens() -> None:
    done = check(LowerMaskColumn(), _model(order=1), FEEDS, SAME)
    assert reasons(done) == ["the order of tokens hides keys, too"]


def test_refuses_a_bias() -> None:
    feeds = {**FEEDS, "bias": random(1, 1, 6, 6)}
    done = check(LowerMaskColumn(), _model(bias="bias"), feeds, SAME)
    assert reasons(done) == ["scores have a bias, or keys come from a cache"]


def test_refuses_other_types() -> None:
    done = LowerMaskColumn()
    done(_model(of="float16"))
    assert reasons(done) == ["queries are not fp32"]


def test_refuses_a_mask_of_the_layer() -> None:
    model = load(
        f"""main (float[b, s, 16] q) => (float[b, s, 16] y) {{
          [one] y = ai.lepton.layer.block (q)
        }}
        {LAYER}
        block (q) => (y) {{
          zero = Constant <value_int: int = 0> ()
          column = Gather <axis = -1> (q, zero)
          mask = Cast <to = 6> (column)
          y = com.microsoft.MultiHeadAttention <num_heads = 4> (q, q, q, , mask)
        }}"""
    )
    done = LowerMaskColumn()
    done(model)
    assert reasons(done) == ["the mask is made inside the layer"]


def _plain(more: str = "scale = 0.4", mask: str = "b, s", width: str = "16") -> ir.Model:
    return load(
        f"""main (float[b, s, {width}] q, int32[{mask}] mask) => (float[b, s, {width}] y) {{
          y = com.microsoft.MultiHeadAttention <num_heads = 4, {more}> (q, q, q, , mask)
        }}"""
    )


def test_a_scale_that_is_not_said_is_that_of_the_heads_before() -> None:
    model = _plain("unidirectional = 0")
    feeds = {"q": FEEDS["q"], "mask": MASK.astype(np.int32)}
    assert check(LowerMaskColumn(), model, feeds, CLOSE).fired == 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"mask": "b"}, "the mask is not one of keys"),
        ({"mask": "b, s, t"}, "the mask is not one of keys"),
        ({"more": "scale = 0.4, mask_filter_value = -1.0"}, "the mask has a value of its own"),
        (
            {"more": "unidirectional = 0", "width": "d"},
            "the width of heads is unknown, by which scores are scaled",
        ),
    ],
)
def test_refuses_masks_of_other_forms_and_scales(how: dict[str, str], reason: str) -> None:
    done = LowerMaskColumn()
    done(_plain(**how))
    assert reasons(done) == [reason]


def test_refuses_outputs_for_a_cache() -> None:
    model = load(
        """main (float[b, s, 16] q, int32[b, s] mask)
            => (float[b, s, 16] y, float[b, 4, s, 4] k, float[b, 4, s, 4] v) {
          y, k, v = com.microsoft.MultiHeadAttention <num_heads = 4> (q, q, q, , mask)
        }"""
    )
    done = LowerMaskColumn()
    done(model)
    assert reasons(done) == ["its keys and values are read behind it"]


def test_what_has_no_mask_is_left_alone() -> None:
    model = load(
        """main (float[b, s, 16] q) => (float[b, s, 16] y) {
          y = com.microsoft.MultiHeadAttention <num_heads = 4> (q, q, q)
        }"""
    )
    done = check(LowerMaskColumn(), model, {"q": FEEDS["q"]}, SAME)
    assert (done.fired, reasons(done)) == (0, [])


@pytest.mark.parametrize(
    ("capacity", "native", "wanted"),
    [(LONG, False, True), (LONG - 1, False, False), (None, False, True), (LONG, True, False)],
)
def test_for_long_texts_without_kernels_of_ours(
    capacity: int | None, native: bool, wanted: bool
) -> None:
    (entry,) = (each for each in CATALOG if each.make is LowerMaskColumn)
    made = entry.instance(Settings(capacity=capacity, native=native))
    assert (made is not None) == wanted


def test_refuses_masks_of_a_file() -> None:
    """A row whose keys are all hidden has scores that differ by what a large number leaves of."""
    model = _model()
    mark_file(model)
    before = run(model, {**FEEDS, "mask": np.zeros_like(MASK)})
    column = LowerMaskColumn()
    column(model)
    assert (column.fired, {*reasons(column)}) == (
        0,
        {"the mask is one of a file, which may hide all keys"},
    )
    np.testing.assert_array_equal(run(model, {**FEEDS, "mask": np.zeros_like(MASK)}), before)
