"""In what pieces loaders give an engine its work, and that slices of a batch give the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import transformers

import lepton_compile as lc
from lepton_compile.engines.ort_cpu.pieces import SLICE, pieces
from lepton_compile.engines.ort_cpu.saturation import multiplies_bytes
from lepton_passes.origin import mark_file
from tests.plugins.cpu_library import needs_library
from tests.small import saved

HEADER = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1, "ai.lepton.cpu": 1]>'


def _graph(inputs: str, outputs: str, *nodes: str) -> ir.Model:
    return ir.from_onnx_text(f"{HEADER} g ({inputs}) => ({outputs}) {{ {' '.join(nodes)} }}")


TOKENS = "int64[batch, sequence] input_ids"
ROWS = "float[batch, sequence, 8] y"
EMBED = "y = com.microsoft.GatherBlockQuantized (input_ids, input_ids, input_ids)"


@pytest.mark.parametrize(
    ("model", "sliced"),
    [
        (_graph(TOKENS, ROWS, EMBED), True),
        (_graph(TOKENS, "float[8] y", EMBED), False),
        (_graph(TOKENS, "float[sequence, batch] y", EMBED), False),
        (_graph(f"{TOKENS}, float[8] bias", ROWS, EMBED), False),
        (_graph("int64[2, sequence] input_ids", "float[2, 8] y", EMBED), False),
        (_graph("int64[batch] input_ids", "float[batch, 8] y", EMBED), False),
        (_graph("int64[batch, sequence] ids", ROWS, "y = Cast <to = 1> (ids)"), False),
        (_graph(TOKENS, ROWS, "y = DynamicQuantizeMatMul (input_ids, input_ids)"), False),
    ],
)
def test_rows_that_stand_alone_are_sliced(model: ir.Model, sliced: bool) -> None:
    assert pieces(model) == ({"slice": SLICE} if sliced else {})


def test_rows_of_a_file_may_read_each_other() -> None:
    model = _graph(TOKENS, ROWS, EMBED)
    mark_file(model)
    assert pieces(model) == {}


@pytest.mark.parametrize(
    ("heads", "piece"), [("rounded = 1, num_heads = 8, kv_num_heads = 4", 17), ("rounded = 0", 0)]
)
def test_attention_that_rounds_wants_long_pieces(heads: str, piece: int) -> None:
    node = f"y = ai.lepton.cpu.GroupQueryAttention <{heads}> (x)"
    found = pieces(_graph("float[batch, sequence, 8] x", ROWS, node))
    assert found == ({"piece": piece} if piece else {})


@pytest.mark.parametrize(
    ("op", "multiplies"),
    [
        *((op, True) for op in ("MatMulInteger", "QLinearMatMul", "QGemm", "QuantizeLinear")),
        *((f"com.microsoft.{op}", True) for op in ("DynamicQuantizeMatMul", "MatMulNBits")),
        *((f"ai.lepton.cpu.{op}", False) for op in ("QuantizedLinear", "QuantizedEmbedding")),
        *((op, False) for op in ("DequantizeLinear", "com.microsoft.GatherBlockQuantized", "Add")),
    ],
)
def test_ops_of_quantized_numbers_that_do_more_than_read_them(op: str, multiplies: bool) -> None:
    assert multiplies_bytes(_graph(TOKENS, ROWS, f"y = {op} (input_ids)")) is multiplies


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.BertConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=2,
        num_hidden_layers=2,
        max_position_embeddings=64,
    )
    folder = saved("BertModel", config, tmp_path_factory.mktemp("bert"))
    made = lc.build(
        model=str(folder),
        task="feature-extraction",
        quantize="int8",
        shapes={"batch": [1, 64], "sequence": [1, 64]},
        output=folder / "out",
        verify=False,
    )
    return made.path


@needs_library
def test_slices_give_the_bits_of_the_whole(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    ids = random.integers(1, 96, (47, 48))
    mask = (np.arange(48) < random.integers(1, 49, (47, 1))).astype(np.int64)
    with lc.load(encoder, threads=2) as model:
        assert model.engine["saturates"] is False
        assert model.engine["kernels"]["slice"] == SLICE
        rows: list[int] = []
        session, run = model.session, model.session.run

        class Watched:
            def run(self, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
                rows.append(len(given["input_ids"]))
                return run(names, given)

        model.session = Watched()
        sliced = model.run({"input_ids": ids, "attention_mask": mask})
        assert rows == [10, 10, 10, 10, 7]  # 2 x 256 tokens of 48
        model.session = session
        monkeypatch.setitem(model.engine, "kernels", None)
        whole = model.run({"input_ids": ids, "attention_mask": mask})
    assert sliced.keys() == whole.keys()
    for name, array in whole.items():
        assert np.array_equal(sliced[name], array)
