"""What was asked for and what the parser made of it are compared, node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from lepton_compile.engines.tensorrt.asked import Asked, asked_of, compare
from lepton_compile.engines.tensorrt.flavour import RTX
from lepton_compile.engines.tensorrt.process import run_child
from lepton_compile.errors import EngineError
from tests.engines.tensorrt.orders import ATTENTION, graph, order_for

pytest.importorskip("tensorrt_rtx")

LENGTHS = 'y = trt.TRT_Attention <causal_kind = "lower_right"> (q, k, v, {})'
KEPT = LENGTHS.format('"", "", n')
DROPPED = LENGTHS.format('"", "", "", "", n')
SILENT = 'y = Attention (q, k, v, "", "", "", n)'
CACHE = """main (float16[b, 2, 16, 64] past, float16[b, 2, s, 64] x, int64[b] at) =>
    (float16[b, 2, 16, 64] present) { present = TensorScatter <axis = -2> (past, x, at) }"""


def attention(text: str) -> ir.Model:
    # The standard counts in int64, TensorRT in int32.
    inputs = ATTENTION.replace("int32", "int64") if text is SILENT else ATTENTION
    name = "layers.0/attention"
    return graph(f"{inputs} {{ {text} }}", TRT_Attention=name, Attention=name)


def parsed(folder: Path, model: ir.Model) -> list[dict[str, Any]]:
    """The layers that the real parser makes."""
    found: list[dict[str, Any]] = []
    run_child(order_for(folder, model), RTX, look=lambda e: found.extend(e.get("layers") or ()))
    return found


def test_a_plain_node_is_not_asked_for() -> None:
    model = graph(f'{ATTENTION} {{ z = Relu (q) y = trt.TRT_Attention (z, k, v, "", "", n) }}')
    assert asked_of(model) == [Asked("TRT_Attention", "ATTENTION_INPUT", 4)]


def test_a_node_of_a_plugin_is() -> None:
    model = graph("main (float16[b, 8] x) => (y) { y = lepton.Own (x, x) }")
    assert asked_of(model, ["lepton"]) == [Asked("Own", "PLUGIN_V3", 2)]
    assert asked_of(model) == []


def test_what_is_kept_compares(tmp_path: Path) -> None:
    for index, model in enumerate((attention(KEPT), graph(CACHE, TensorScatter="layers.0/key"))):
        folder = tmp_path / str(index)
        folder.mkdir()
        asked = asked_of(model)
        assert len(asked) == 1
        compare(asked, parsed(folder, model), RTX)


@pytest.mark.parametrize("text", [DROPPED, SILENT])
def test_an_input_that_the_parser_drops(tmp_path: Path, text: str) -> None:
    model = attention(text)
    asked = asked_of(model)
    with pytest.raises(EngineError, match="dropped an input of this node") as raised:
        compare(asked, parsed(tmp_path, model), RTX)
    assert raised.value.where == "layers.0/attention"
    assert raised.value.found == "3 inputs in the network"
    assert list(raised.value.available) == ["4 inputs in the graph"]


def test_a_layer_that_is_not_there(tmp_path: Path) -> None:
    layers = parsed(tmp_path, attention(KEPT))
    with pytest.raises(EngineError, match="no ATTENTION_INPUT was made") as raised:
        compare([Asked("layers.1/attention", "ATTENTION_INPUT", 4)], layers, RTX)
    assert (raised.value.where, raised.value.found) == ("layers.1/attention", "no layer")


def test_a_layer_of_another_type(tmp_path: Path) -> None:
    layers = parsed(tmp_path, attention(KEPT))
    with pytest.raises(EngineError, match="no KV_CACHE_UPDATE was made") as raised:
        compare([Asked("layers.0/attention", "KV_CACHE_UPDATE", 3)], layers, RTX)
    assert raised.value.found == "ATTENTION_INPUT"
