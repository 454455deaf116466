"""Which weights are decided together."""

from __future__ import annotations

import numpy as np
import pytest

from lepton_compile.pipeline.mixed.units import kind_of, units_of
from lepton_passes.quant.weight_int4 import WeightInt4
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes import experts
from tests.passes.quant import quantizing, rounding
from tests.passes.support import random


def test_weights_that_read_the_same_are_one_unit() -> None:
    names = [tuple(part.name for part in unit.parts) for unit in units_of(rounding.model())]
    assert names == [
        ("layers0_up_weight", "layers0_gate_weight"),
        ("layers0_down_weight",),
        ("layers1_up_weight", "layers1_gate_weight"),
        ("layers1_down_weight",),
    ]


def test_both_weights_of_a_mixture_are_one_unit() -> None:
    model, _ = experts.experts(experts.Settings())
    assert [[part.name for part in unit.parts] for unit in units_of(model)] == [["gu", "dn"]]


def test_what_chooses_experts_is_no_unit() -> None:
    model = experts.scored()
    assert "router" not in {part.name for unit in units_of(model) for part in unit.parts}


def test_a_tied_table_is_one_weight() -> None:
    graph, _ = quantizing.model()
    units = {unit.name: unit for unit in units_of(graph)}
    assert list(units) == ["table", "layers0_up_weight", "layers1_up_weight"]
    assert units["table"].table
    assert not units["layers0_up_weight"].table


def test_columns_that_no_group_divides_stay_at_8_bits() -> None:
    graph, _ = quantizing.model(width=40)
    assert {unit.formats for unit in units_of(graph)} == {(None, 8)}


def test_bytes_are_those_of_numbers_and_scales() -> None:
    unit = units_of(rounding.model())[0]
    assert unit.bytes(None) == 2 * 64 * 64 * 4
    assert unit.bytes(8) == 2 * 64 * (64 + 4)
    assert unit.bytes(4) == 2 * 64 * (32 + 2 * 4)


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_tried_is_what_the_passes_write(bits: int) -> None:
    graph, _ = quantizing.model()
    part = next(unit.parts[0] for unit in units_of(graph) if unit.name == "table")
    w = part.tensor.numpy()
    tried = part.rounded(w, bits, None)
    (WeightInt4() if bits == 4 else WeightInt8())(graph)
    q, scale = (graph.graph.initializers[f"table_{kind}"].const_value for kind in ("q", "scale"))
    wide = q.numpy().astype(np.float32).reshape(scale.size, -1) * scale.numpy().reshape(-1, 1)
    np.testing.assert_array_equal(tried, wide.reshape(w.shape))
    assert part.rounded(w, None, None) is w


def test_weighed_columns_lose_less_where_it_matters() -> None:
    part = next(unit.parts[0] for unit in units_of(rounding.model()))
    w, energy = random(64, 64, seed=9), np.ones(64)
    energy[::8] = 100.0
    plain, weighed = ((part.rounded(w, 4, e) - w) ** 2 for e in (None, energy))
    assert (weighed * energy).sum() < 0.9 * (plain * energy).sum()


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["model.layers.3.mlp.gate_proj.weight", "model.layers.3.mlp.up_proj.weight"], "mlp"),
        (["encoder.layer.0.attention.self.query.weight"], "query"),
        (["model.embed_tokens.weight"], "embed_tokens"),
    ],
)
def test_a_kind_has_no_number_of_a_layer(names: list[str], kind: str) -> None:
    found = kind_of(names)
    assert kind in found
    assert not any(letter.isdigit() for letter in found)
    later = [name.replace(".3.", ".11.").replace(".0.", ".7.") for name in names]
    assert kind_of(later) == found
