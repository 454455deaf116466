"""Candidates that really run on this machine, and those that do not."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest

from lepton_compile.tactics import measure as module
from lepton_compile.tactics.candidates import lowered
from lepton_compile.tactics.choose import choose
from lepton_compile.tactics.clock import Clock
from lepton_compile.tactics.measure import LARGEST, Bench, _cut
from lepton_passes.lowering.ort.choices import Layer
from lepton_plugins.linear.spec import ACTIVATIONS
from tests.plugins.cpu_library import library, needs_library
from tests.tactics.measured import LATENCY

pytestmark = needs_library

FOUR = Layer(256, 320, 4, 32, decoder=True)
EIGHT = Layer(256, 320, 8)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(library(), exact=True)


@pytest.mark.parametrize(
    ("layer", "kernels"),
    [
        (FOUR, ["native", "nbits"]),
        (Layer(256, 512, 4, 32, ACTIVATIONS["silu"], 1, decoder=True), ["native", "nbits"]),
        (Layer(256, 1000, 4, 32, tied=True, decoder=True), ["native", "nbits"]),
        (EIGHT, ["native", "nbits", "dynamic"]),
    ],
)
def test_every_candidate_is_timed(bench: Bench, layer: Layer, kernels: list[str]) -> None:
    found = bench.measure(layer, [1, 64], Clock())
    assert found.failed == {}
    assert found.usual == "native"
    assert list(found.errors) == list(found.bytes) == list(found.seconds) == kernels
    for times in found.seconds.values():
        assert list(times) == [1, 64]
        assert all(0 < seconds < 10 for seconds in times.values())
    assert found.spread >= 1


def test_errors_are_those_that_the_budget_was_set_by(bench: Bench) -> None:
    """Of kernels, on columns as Gemma 3 270M and MiniLM have them."""
    errors = {
        columns: bench.measure(Layer(columns, 256, 8), [], Clock()).errors
        for columns in (384, 1536)
    }
    for found in errors.values():
        assert found["native"] == pytest.approx(0.0244, rel=0.1)
        assert found["nbits"] == pytest.approx(0.0107, rel=0.1)
    assert errors[384]["dynamic"] > 1.2 * errors[384]["native"]
    assert errors[1536]["dynamic"] == pytest.approx(0.0475, rel=0.1)
    decoder = bench.measure(Layer(640, 256, 8, 64, decoder=True), [], Clock()).errors
    assert decoder["native"] == pytest.approx(0.0084, rel=0.1)
    assert decoder["nbits"] == pytest.approx(0.0107, rel=0.1)


@pytest.mark.parametrize("layer", [FOUR, EIGHT, Layer(64, 2048, 4, 32, tied=True)])
def test_bytes_are_those_of_the_file(bench: Bench, layer: Layer) -> None:
    found = bench.measure(layer, [], Clock())
    assert found.seconds == {tactic: {} for tactic in found.errors}
    weights = layer.columns * layer.rows * layer.bits // 8
    for size in found.bytes.values():
        assert weights <= size < 1.3 * weights


def test_a_candidate_that_a_pass_declines_is_left_out(bench: Bench) -> None:
    found = bench.measure(Layer(272, 320, 4, 16), [1], Clock())
    assert found.usual == "nbits"
    assert list(found.seconds) == ["nbits"]
    assert found.failed == {"native": "groups of 16 columns are no multiple of 32"}


def test_a_session_that_fails_is_left_out_and_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(layer: Layer, tactic: str) -> ir.Model:
        model = lowered(layer, tactic)  # type: ignore[arg-type]
        for node in model.graph:
            if tactic == "native" and node.op_type == "QuantizedLinear":
                node.op_type = "NoSuchOp"
        return model

    monkeypatch.setattr(module, "lowered", broken)
    found = bench.measure(FOUR, [1, 128], Clock())
    assert list(found.seconds) == ["nbits"]
    assert "NoSuchOp" in found.failed["native"]
    assert choose(found, LATENCY).tactic == "nbits"


def test_where_no_session_opens_nothing_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(b"no library")
    found = Bench(tmp_path / "lib.so").measure(FOUR, [1, 128], Clock())
    assert (found.seconds, found.errors) == ({}, {})
    assert {*found.failed} == {"native", "nbits"}
    assert choose(found, LATENCY).tactic == "native"


@pytest.mark.parametrize(
    ("layer", "rows"),
    [
        (Layer(640, 1024, 4, 32), 1024),
        (Layer(640, 262144, 4, 32, tied=True), 1600),
        (Layer(28672, 8192, 4, 32), 64),
        (Layer(4096, 28672, 4, 32, ACTIVATIONS["silu"], 1), 256),
        (Layer(64, 70, 8), 70),
    ],
)
def test_large_layers_are_cut(layer: Layer, rows: int) -> None:
    cut = _cut(layer)
    assert cut.rows == rows
    assert cut.rows * cut.columns <= max(LARGEST, 64 * layer.columns)
    assert (cut.columns, cut.gated, cut.tied) == (layer.columns, layer.gated, layer.tied)
