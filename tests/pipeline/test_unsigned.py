"""Products of bytes in the check: exact on every processor, with the table of an encoder beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lepton_compile as lc
from lepton_compile.pipeline.unsigned import with_unsigned_weights
from lepton_passes.lowering.ort.linear import LowerLinear
from lepton_passes.quant.weight_int8 import WeightInt8
from tests.passes.support import load, ops, random, run
from tests.small import bert, saved

TEXT = """main (float[b, s, 32] x) => (y) {
  t = Transpose <perm = [1, 0]> (w)
  y = MatMul (x, t)
}"""


def test_the_largest_products_are_exact() -> None:
    """All weights and activations at their ends: where two products in 16 bits saturate."""
    signs = np.where(np.arange(16 * 32).reshape(16, 32) % 3, 1.0, -1.0).astype(np.float32)
    graph = load(TEXT, {"w": signs})
    feeds = {"x": np.where(random(1, 4, 32) > -1, 1.0, -1.0).astype(np.float32)}
    WeightInt8()(graph)
    wanted = run(graph, feeds)[0]
    LowerLinear(lambda *_: "dynamic")(graph)
    made = with_unsigned_weights(graph)
    assert ops(made) == ops(graph) == ["DynamicQuantizeMatMul"]
    weights = [
        v for v in made.graph.initializers.values() if v.shape is not None and v.shape.rank() == 2
    ]
    assert [str(v.dtype) for v in weights] == ["UINT8"]
    np.testing.assert_allclose(run(made, feeds)[0], wanted, atol=0.3)
    assert with_unsigned_weights(made) is not graph
    assert ops(graph) == ["DynamicQuantizeMatMul"], "the graph itself is as it was"


def test_what_multiplies_no_bytes_is_not_copied() -> None:
    graph = load(TEXT, {"w": random(16, 32)})
    assert with_unsigned_weights(graph) is graph


def test_an_encoder_with_a_quantized_table_passes_the_check(tmp_path: Path) -> None:
    config = bert(vocab_size=3000)  # large enough to be quantized
    saved("BertModel", config, tmp_path / "model")
    built = lc.build(
        model=str(tmp_path / "model"),
        task="feature-extraction",
        quantize="int8",
        output=tmp_path / "out",
        verify=False,
    )
    assert built.manifest.engines[0]["compared"]["passes"] is True


def test_zero_points_of_a_file_are_its_own() -> None:
    text = """main (float[b, s, 32] x) => (float[b, s, 16] y) {
      y = com.microsoft.DynamicQuantizeMatMul (x, w, scale, zero)
    }"""
    weights = {
        "w": np.arange(32 * 16).reshape(32, 16).astype(np.int8),
        "scale": np.array(0.1, np.float32),
        "zero": np.array(3, np.int8),
    }
    graph, feeds = load(text, weights), {"x": random(1, 4, 32)}
    made = with_unsigned_weights(graph)
    np.testing.assert_array_equal(run(made, feeds)[0], run(graph, feeds)[0])
