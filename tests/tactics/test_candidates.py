"""A layer by itself: what each kernel makes of it, and that all compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from lepton_compile.tactics.candidates import (
    DeclinedError,
    _neutral,
    feeds_of,
    lowered,
    repeated,
    tactics_of,
    usual,
    weights_of,
)
from lepton_passes.contract import Tolerance
from lepton_passes.lowering.ort.choices import Choices, Layer
from lepton_passes.lowering.ort.native_linear import LowerNativeLinear
from lepton_plugins.linear.spec import ACTIVATIONS
from tests.passes.support import assert_close, ops, run
from tests.plugins.cpu_library import library, needs_library

pytestmark = needs_library

# Heavy tails leave some kernels 5 % off in the mean, and more at the worst.
ROUNDED = Tolerance(error=0.08, cosine=0.99)
GELU, SILU = ACTIVATIONS["gelu_tanh"], ACTIVATIONS["silu"]

LAYERS = [
    Layer(64, 96, 4, 32),
    Layer(64, 96, 4, 32, decoder=True),
    Layer(128, 64, 4, 64, ACTIVATIONS["gelu"]),
    Layer(64, 192, 4, 32, GELU, gated=1, decoder=True),
    Layer(64, 192, 8, 64, SILU, gated=1, decoder=True),
    Layer(64, 500, 4, 32, tied=True, decoder=True),
    Layer(64, 500, 8, 64, tied=True, decoder=True),
    Layer(64, 500, 8, tied=True),
    Layer(64, 96, 8),
    Layer(96, 64, 8, None, SILU),
]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_all_kernels_compute_the_same(layer: Layer) -> None:
    feeds = feeds_of(layer, 5)
    truth = run(_neutral(layer), feeds)
    for tactic in tactics_of(layer):
        assert_close(truth, run(lowered(layer, tactic), feeds), ROUNDED)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_the_layer_is_the_one_that_is_asked_for(layer: Layer) -> None:
    asked: list[Layer] = []

    def choose(layers: object) -> dict[Layer, object]:
        asked.extend(layers)  # type: ignore[call-overload]
        return {}

    LowerNativeLinear(Choices(choose))(_neutral(layer))  # type: ignore[arg-type]
    assert asked == [layer]


@pytest.mark.parametrize(
    ("layer", "tactic", "expected"),
    [
        (LAYERS[0], "native", ["QuantizedLinear"]),
        (LAYERS[3], "native", ["QuantizedLinear"]),
        (LAYERS[3], "nbits", ["MatMulNBits", "Split", "Gelu", "Mul"]),
        (LAYERS[4], "nbits", ["MatMulNBits", "Split", "QuickGelu", "Mul"]),
        (LAYERS[5], "native", ["QuantizedLinear", "QuantizedEmbedding"]),
        (LAYERS[5], "nbits", ["MatMulNBits", "GatherBlockQuantized"]),
        (LAYERS[8], "nbits", ["MatMulNBits"]),
        (LAYERS[8], "dynamic", ["DynamicQuantizeMatMul"]),
    ],
)
def test_what_each_kernel_is_called(layer: Layer, tactic: str, expected: list[str]) -> None:
    model = lowered(layer, tactic)  # type: ignore[arg-type]
    assert ops(model) == expected


def test_what_a_pass_declines_is_said() -> None:
    with pytest.raises(DeclinedError, match="groups of 16 columns are no multiple of 32"):
        lowered(Layer(48, 64, 4, 16), "native")
    assert ops(lowered(Layer(48, 64, 4, 16), "nbits")) == ["MatMulNBits"]


@pytest.mark.parametrize(
    ("layer", "able", "taken"),
    [
        (Layer(64, 96, 8), ["native", "nbits", "dynamic"], "native"),
        (Layer(64, 96, 8), [], "native"),  # the pass says why not
        (Layer(64, 96, 8), ["nbits", "dynamic"], "dynamic"),
        (Layer(96, 64, 8), ["nbits", "dynamic"], "nbits"),
        (Layer(64, 96, 8), ["nbits"], "nbits"),
        (Layer(64, 96, 4, 32), ["nbits"], "nbits"),
    ],
)
def test_the_usual_kernel_is_that_of_the_passes(layer: Layer, able: list[str], taken: str) -> None:
    assert usual(layer, able) == taken  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "dynamic"),
    [
        (Layer(64, 96, 8), True),
        (Layer(64, 96, 8, tied=True), False),
        (Layer(64, 96, 8, 32), False),
        (Layer(64, 96, 4, 32), False),
    ],
)
def test_only_rows_of_8_bits_that_are_no_table_are_rounded_as_they_come(
    layer: Layer, dynamic: bool
) -> None:
    assert ("dynamic" in tactics_of(layer)) == dynamic


@pytest.mark.parametrize("tactic", ["native", "nbits"])
def test_several_in_one_have_weights_of_their_own(tactic: str) -> None:
    layer = LAYERS[5]
    model = lowered(layer, tactic)  # type: ignore[arg-type]
    once, more = (ir.from_proto(onnx.load_from_string(repeated(model, n))) for n in (1, 3))
    assert len(more.graph.initializers) == 3 * len(once.graph.initializers)
    assert len(ops(more)) == 3 * len(ops(once))
    feeds = feeds_of(layer, 4)
    single, several = run(once, feeds), run(more, feeds)
    assert [each.shape for each in several] == 3 * [each.shape for each in single]
    for name, value in once.graph.initializers.items():
        first = value.const_value.numpy()
        others = [more.graph.initializers[f"{name}_{n}"].const_value.numpy() for n in (1, 2)]
        for number, other in enumerate(others, 1) if first.ndim > 1 else ():
            np.testing.assert_array_equal(other, np.roll(first, number, axis=0))
            assert first.dtype != np.uint8 or other.tobytes() != first.tobytes()


def test_numbers_are_the_same_each_time_and_have_outliers() -> None:
    layer = Layer(640, 256, 8, 64)
    x, again = feeds_of(layer, 32)["x"], feeds_of(layer, 32)["x"]
    np.testing.assert_array_equal(x, again)
    assert np.abs(x).max() > 10 * np.abs(x).std()
    q, _ = weights_of(layer)
    assert (q.min(), q.max()) == (-127, 127)


@pytest.mark.parametrize("tactic", ["native", "nbits"])
def test_onnxruntime_leaves_the_copies_alone(tactic: str, tmp_path: Path) -> None:
    """It looks for nodes that are the same; what is timed must be there."""
    layer = Layer(64, 96, 4, 32)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.register_custom_ops_library(str(library()))
    data = repeated(lowered(layer, tactic), 4)  # type: ignore[arg-type]
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    assert len(onnx.load(tmp_path / "optimized.onnx").graph.node) == 4
