"""Rotary tables in two parts: the numbers far from the start, and which tables stay whole."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.lowering.trt.rotary_tables import LowerTrtRotaryTables
from lepton_passes.lowering.trt.static_cache import LowerTrtStaticCache
from tests.passes.lowering.trt.decoder import neutral
from tests.passes.support import Arrays, load, ops, reasons, run

ROWS, HALF = 4096, 16
ANGLES = np.outer(np.arange(ROWS), 10000.0 ** -(np.arange(HALF) / HALF))
TABLES = {"cos_table": np.cos(ANGLES), "sin_table": np.sin(ANGLES)}


def rotation(tables: Arrays) -> ir.Model:
    """Two rotations with the same lookups."""
    text = f"""g (float[b, s, {4 * HALF}] q, float[b, s, {2 * HALF}] k, int64[b, s] at) =>
        (float[b, s, {4 * HALF}] x, float[b, s, {2 * HALF}] y) {{
      cos = Gather (cos_table, at)
      sin = Gather (sin_table, at)
      x = RotaryEmbedding <num_heads = 2> (q, cos, sin)
      y = RotaryEmbedding <num_heads = 1> (k, cos, sin)
    }}"""
    return load(text, {name: table.astype(np.float32) for name, table in tables.items()})


def feeds(rows: int = ROWS) -> Arrays:
    at = np.array([[0, 1, 63, 64, 65], [rows - 1, rows - 2, 1000, 2047, 2048]])
    ones = np.ones((2, 5, 4 * HALF), np.float32)
    return {"q": ones, "k": ones[..., : 2 * HALF], "at": at % rows}


@pytest.mark.parametrize("factor", [1.0, 1.25])
@pytest.mark.parametrize("rows", [ROWS, 4000, 1500])
def test_a_row_is_a_coarse_row_turned_by_a_fine_one(factor: float, rows: int) -> None:
    tables = {name: factor * table[:rows] for name, table in TABLES.items()}
    model = rotation(tables)
    before = run(model, feeds(rows))
    done = LowerTrtRotaryTables()
    done(model)
    assert (done.fired, reasons(done)) == (1, [])
    assert ops(model).count("Gather") == 4
    kept = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    assert sum(v.const_value.size for v in kept if v.const_value) <= 4 * 128 * HALF
    for found, expected in zip(run(model, feeds(rows)), before, strict=True):
        # Angles are exact to 2**-24 of themselves, in the table and in its parts.
        assert np.abs(found - expected).max() < factor * rows * 2.0**-23


def test_the_parts_are_as_near_to_the_exact_angle_as_the_table() -> None:
    angles = ANGLES.astype(np.float32)
    rough = {"cos_table": np.cos(angles), "sin_table": np.sin(angles)}
    model, at = rotation(rough), np.arange(ROWS)[None]
    ones = np.ones((1, ROWS, 4 * HALF), np.float32)
    given = {"q": ones, "k": ones[..., : 2 * HALF], "at": at}
    exact = np.concatenate(
        [np.cos(ANGLES) - np.sin(ANGLES), np.cos(ANGLES) + np.sin(ANGLES)], axis=1
    )
    errors = [np.abs(run(model, given)[1][0] - exact).max()]
    LowerTrtRotaryTables()(model)
    errors.append(np.abs(run(model, given)[1][0] - exact).max())
    assert errors[1] < 2 * errors[0]


def test_rows_that_are_no_rotation_are_declined() -> None:
    bent = {name: table.copy() for name, table in TABLES.items()}
    bent["cos_table"][3000] += 0.01
    done = LowerTrtRotaryTables()
    model = rotation(bent)
    done(model)
    assert done.fired == 0
    assert reasons(done) == ["its rows are not products of others"]
    assert ops(model).count("Gather") == 2


def test_a_short_table_is_left() -> None:
    model = rotation({name: table[:1024] for name, table in TABLES.items()})
    done = LowerTrtRotaryTables()
    done(model)
    assert (done.fired, reasons(done)) == (0, [])


def test_a_table_that_ends_before_the_cache_is_still_refused_by_its_pass() -> None:
    model = neutral(rows=2000)
    LowerTrtRotaryTables(4000)(model)
    cache = LowerTrtStaticCache(4000)
    cache(model)
    assert set(reasons(cache)) == {"a table of 2000 positions, 4000 in a row"}


def test_layers_that_share_lookups_are_rewritten_once() -> None:
    model = neutral(rows=2000)
    done = LowerTrtRotaryTables(1500)
    done(model)
    assert (done.fired, reasons(done)) == (1, [])
    cache = LowerTrtStaticCache(1500)
    cache(model)
    assert reasons(cache) == []
