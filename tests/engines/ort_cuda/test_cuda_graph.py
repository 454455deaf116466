"""Decode steps as CUDA graphs: what they read and where, with the CPU standing for the device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from transformers import Gemma3TextConfig

import lepton_compile as lc
from lepton_compile.engines.probe import probe
from lepton_compile.runtime import Model, loader_ort, loader_ort_cuda
from lepton_compile.runtime.loader_cuda_graph import GraphCache
from lepton_compile.runtime.loader_graph_states import GraphStates
from lepton_compile.runtime.loader_ort_cuda import CudaSession
from lepton_compile.runtime.loader_shared_cache import SharedCache
from tests.export import zoo
from tests.export.harness import relative_error, save
from tests.export.hybrids import HYBRIDS

ROWS = [[5, 17, 3, 42, 8, 61], [9, 2, 33]]
needs_gpu = pytest.mark.skipif(
    not probe("ort-cuda").runs, reason=probe("ort-cuda").reason or "runs"
)


def _built(folder: Path, config: Any, compute: str = "fp16") -> tuple[Path, Any]:
    reference = save(config, "text-generation", folder / "model")
    made = lc.build(
        model=str(folder / "model"),
        target="ort-cuda",
        compute=compute,
        output=folder / "out",
        verify=False,
    )
    assert made.manifest.cache is not None
    assert made.manifest.cache["shared"] is True
    return made.path, reference


def _gemma() -> Gemma3TextConfig:
    """Heads of 32, so that rotation and norms of heads are inside the kernel; a short window."""
    return Gemma3TextConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=3, head_dim=32,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip


def test_norms_of_heads_are_in_the_kernel(tmp_path: Path) -> None:
    path, _ = _built(tmp_path, _gemma)
    graph = onnx.load(next(path.rglob("*.onnx")), load_external_data=False).graph
    attention = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    assert [len(node.input) for node in attention] == [16, 16, 16]
    assert not {"Split", "RotaryEmbedding"} & {
        node.op_type for node in graph.node if "attn" in node.output[0]
    }


@pytest.fixture
def model(tmp_path: Path, stand_in: None) -> Iterator[Model]:
    """An engine for a GPU, opened on the CPU, whose session would capture."""
    path, _ = _built(tmp_path, zoo.DECODERS["llama"][0])
    with lc.load(path, target="ort-cuda") as opened:
        opened.session = CudaSession(opened.session, captures=True)
        yield opened


def test_steps_give_what_steps_without_a_graph_give(model: Model) -> None:
    """Rows of different lengths, one of which stops; then one row alone in the same buffers."""
    plain, captured = SharedCache(model, 2, 32), model.new_cache(2, 32)
    assert isinstance(captured, GraphCache)
    for rows in (ROWS, ROWS[:1]):
        found = [cache.start(rows) for cache in (plain, captured)]
        np.testing.assert_array_equal(*found)
        for token in range(4, 8):
            alive = [True, token < 6][: len(rows)]
            found = [cache.step([token] * len(rows), alive).copy() for cache in (plain, captured)]
            np.testing.assert_allclose(*found, rtol=0, atol=2e-3)


def test_states_do_not_see_the_run_that_captures(
    tmp_path: Path, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which onnxruntime does twice: once for what it allocates, and once for the graph."""
    path, reference = _built(tmp_path, HYBRIDS["lfm2"].config)
    with lc.load(path, target="ort-cuda") as opened, torch.no_grad():
        opened.session = session = CudaSession(opened.session, captures=True)
        run, known = session.run_with_iobinding, set[int]()

        def captured(binding: Any, graph: int = -1) -> None:
            for _ in range(1 if graph in known or graph == -1 else 2):
                run(binding, graph)
            known.add(graph)

        monkeypatch.setattr(session, "run_with_iobinding", captured)
        cache = opened.new_cache(2, 32)
        assert isinstance(cache, GraphStates)
        for rows in ([*map(list, ROWS)], [list(ROWS[1])], [*map(list, ROWS)]):
            found = cache.start(rows)
            for token in range(3, 7):
                for row, scores in zip(rows, found, strict=True):
                    expected = reference(torch.tensor([row])).logits[0, -1].numpy()
                    assert relative_error(scores, expected) < 0.02
                    row.append(token)
                found = cache.step([token] * len(rows), [True] * len(rows))
        assert len(known) == 3, "prompts, one row, two rows"


def test_each_size_has_a_graph_of_its_own_and_fixed_addresses(model: Model) -> None:
    asked: list[tuple[str, int]] = []
    run = model.session.run_with_iobinding

    def watched(binding: Any, graph: int = -1) -> None:
        values = captured._steps.get(len(captured.lengths), ((), 0, {}))[2]
        places = " ".join(str(value.data_ptr()) for value in values.values())
        asked.append((places, graph))
        run(binding, graph)

    captured = model.new_cache(2, 32)
    model.session.run_with_iobinding = watched
    for rows in (ROWS, ROWS[:1], ROWS):
        captured.start(rows)
        for _ in range(2):
            captured.step([4] * len(rows), [True] * len(rows))
    prefills = [graph for _, graph in asked if graph == -1]
    assert len(prefills) == 5, "rows of different lengths are read apart"
    steps = [each for each in asked if each[1] != -1]
    assert [graph for _, graph in steps] == [1, 1, 2, 2, 1, 1]
    assert len({places for places, graph in steps if graph == 1}) == 1
    other = model.new_cache(1, 32)
    other.start(ROWS[:1])
    other.step([4], [True])
    assert asked[-1][1] == 3, "another cache has other addresses"


def test_generation_goes_through_it(model: Model) -> None:
    one, both = model.generate(ROWS[1], 5), model.generate(ROWS, 5)
    assert isinstance(model.spare[0], GraphCache)
    assert both[1].tokens == one.tokens


@pytest.mark.parametrize("cache", [{"shared": True}, {"shared": False}, None])
def test_what_cannot_be_captured_runs_kernel_by_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: dict[str, bool] | None
) -> None:
    """As onnxruntime refuses a graph of which a part runs on the host, or opens it.

    Capturing is asked for where the cache is a shared one, and there alone.
    """
    import onnxruntime as ort

    asked: list[list[Any]] = []

    class Session:
        def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
            asked.append(providers)
            if not isinstance(providers[0], str):
                raise RuntimeError("not all nodes have been partitioned to CUDA")

        get_inputs = get_outputs = lambda self: []

        def get_providers(self) -> list[str]:
            return found

    found = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: found)
    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(loader_ort_cuda, "check_driver", lambda: None)
    (tmp_path / "model.onnx").touch()
    manifest = {"cache": cache, "files": {"model.onnx": {"sha256": sha256().hexdigest()}}}
    engine = {"target": "ort-cuda", "requires": {}, "model": "model.onnx", "files": []}
    graphs = cache == {"shared": True}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        opened = loader_ort.open_onnxruntime(tmp_path, manifest, engine, 1)
    assert not opened.captures
    assert asked[-1] == found
    assert [isinstance(each[0], str) for each in asked] == ([False, True] if graphs else [True])
    assert [str(each.message) for each in told] == (
        ["decode steps run kernel by kernel: not all nodes have been partitioned to CUDA"] * graphs
    )


def test_numbers_that_numpy_lacks_go_in_as_bits() -> None:
    """What stands for an empty cache in bfloat16; outputs of that type stay where they are."""
    import onnxruntime

    model = onnx.parser.parse_model(
        """<ir_version: 11, opset_import: ["" : 23]>
        main (bfloat16[n] x, float[n] y) => (float[n] sum, bfloat16[n] same) {
          wide = Cast <to = 1> (x)
          sum = Add (wide, y)
          same = Identity (x)
        }"""
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wrapped = CudaSession(session)
    bits = np.array([0x3F80, 0xC000], np.uint16)  # 1 and -2
    (found,) = wrapped.run(["sum"], {"x": bits, "y": np.array([0.5, 0.5], np.float32)})
    np.testing.assert_array_equal(found, [1.5, -1.5])
    assert wrapped.hidden == ["same"]
    assert wrapped.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("compute", "close"), [("fp16", 0.02), ("bf16", 0.1)])
def test_on_a_gpu(tmp_path: Path, compute: str, close: float) -> None:
    path, reference = _built(tmp_path, _gemma, compute)
    with lc.load(path, target="ort-cuda") as opened, torch.no_grad():
        cache = opened.new_cache(2, 64)
        assert isinstance(cache, GraphCache)
        expected = reference(torch.tensor(ROWS[:1])).logits.numpy()
        assert relative_error(opened.logits(ROWS[0]), expected) < close
        rows, found = [list(row) for row in ROWS], cache.start(ROWS)
        for token in range(3, 20):
            for row, scores in zip(rows, found, strict=True):
                expected = reference(torch.tensor([row])).logits[0, -1].numpy()
                assert relative_error(scores, expected) < close
                row.append(token)
            found = cache.step([token] * 2, [True] * 2)
