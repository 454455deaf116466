"""Measuring: the shapes, the turns and the report. No assertion depends on how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_compile.errors import EngineError
from lepton_compile.numerics.bench import bench
from lepton_compile.numerics.bench.decoder import bench_decoder, lengths_within
from lepton_compile.numerics.bench.encoder import shapes_within
from lepton_compile.numerics.bench.fresh import fresh_start
from lepton_compile.numerics.bench.machine import describe
from lepton_compile.numerics.bench.timing import Timing, alternate
from lepton_compile.progress import NullProgress
from lepton_compile.runtime import load
from tests.runtime import tiny
from tests.small import bert, llama, made


class SmallEncoder:
    """One matrix product behind the surface of the loader."""

    threads = 1

    def __init__(self) -> None:
        self.manifest: dict[str, Any] = {
            "task": "feature-extraction",
            "outputs": [{"name": "last_hidden_state"}],
            "ranges": {"batch": [1, 4], "sequence": [1, 64]},
        }
        self.inputs = {"input_ids": {}, "attention_mask": {}, "token_type_ids": {}}
        self.shapes: set[tuple[int, ...]] = set()

    def run(self, feeds: dict[str, np.ndarray], outputs: Any = None) -> dict[str, np.ndarray]:
        assert set(feeds) == set(self.inputs)
        self.shapes.add(feeds["input_ids"].shape)
        return {"last_hidden_state": feeds["input_ids"][..., None] @ np.ones((1, 8))}


class SmallDecoder:
    """A cache behind the surface of the loader."""

    threads = 1
    task = "text-generation"

    def __init__(self) -> None:
        self.manifest: dict[str, Any] = {
            "task": self.task,
            "ranges": {"batch": [1, 1], "sequence": [1, 100]},
            "generation": {"vocabulary": 50},
            "cache": {"shared": True},
        }
        self.inputs = {"input_ids": {}, "attention_mask": {}, "logits_to_keep": {}}
        self.prompts: list[int] = []
        self.caches: list[SmallCache] = []

    def run(self, feeds: dict[str, np.ndarray], outputs: Any) -> dict[str, np.ndarray]:
        assert feeds["logits_to_keep"] == 1
        self.prompts.append(feeds["input_ids"].shape[1])
        return {"logits": np.zeros((1, 1, 50), np.float32)}

    def new_cache(self, batch: int, capacity: int) -> SmallCache:
        assert batch == self.manifest["ranges"]["batch"][0]
        self.caches.append(SmallCache(batch, capacity))
        return self.caches[-1]


class SmallCache:
    """Takes the likeliest token of the logits it gave: the number of tokens it has seen."""

    def __init__(self, batch: int, capacity: int) -> None:
        self.batch, self.capacity, self.seen, self.steps, self.closed = batch, capacity, 0, 0, False

    def start(self, rows: list[list[int]]) -> np.ndarray:
        assert len(rows) == self.batch
        self.seen = len(rows[0])
        return self._logits()

    def step(self, tokens: list[int], alive: list[bool]) -> np.ndarray:
        assert (tokens, alive) == ([self.seen % 50] * self.batch, [True] * self.batch)
        self.seen, self.steps = self.seen + 1, self.steps + 1
        assert self.seen < self.capacity
        return self._logits()

    def _logits(self) -> np.ndarray:
        return np.eye(50, dtype=np.float32)[[self.seen % 50] * self.batch]

    def close(self) -> None:
        self.closed = True


def test_shapes_move_into_the_ranges() -> None:
    assert shapes_within({"batch": [1, 64], "sequence": [1, 512]}) == [(1, 16), (1, 128), (32, 128)]
    assert shapes_within({"batch": [1, 1], "sequence": [1, 16]}) == [(1, 16)]
    assert shapes_within({"batch": [2, 8], "sequence": [32, 32]}) == [(2, 32), (8, 32)]


def test_prompt_and_new_tokens_fit_into_the_cache() -> None:
    assert lengths_within({"sequence": [1, 4096]}) == (512, 128)
    assert lengths_within({"sequence": [1, 100]}) == (80, 20)


def test_rivals_take_turns() -> None:
    order: list[str] = []
    rivals = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = alternate(rivals, rounds=2)
    assert order == ["a", "b"] * 3  # a round to warm up, then two that count
    assert [len(values) for values in seconds.values()] == [2, 2]


def test_percentiles_are_in_milliseconds() -> None:
    timing = Timing.of([0.001, 0.002, 0.003])
    assert (timing.runs, timing.p50) == (3, pytest.approx(2.0))
    assert timing.p50 < timing.p90 < timing.p99


def test_encoder_report() -> None:
    model = SmallEncoder()
    report = bench(model, rounds=2)
    assert [case.name for case in report.cases] == ["1x16", "1x64", "4x64"]
    assert model.shapes == {(1, 16), (1, 64), (4, 64)}
    data = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert data["cases"][0]["eager_ms"] is None
    assert data["machine"]["threads"] == 1
    last = data["cases"][-1]
    assert last["engine_rows_per_second"] == pytest.approx(4 / last["engine_ms"]["p50"] * 1e3)
    assert last["engine_tokens_per_second"] == pytest.approx(64 * last["engine_rows_per_second"])


def test_each_token_is_timed_by_itself() -> None:
    model = SmallDecoder()
    report = bench(model, rounds=2)
    prefill, decode = report.cases
    # A round to warm up, then two that count: 20 new tokens, the first of them from the prompt.
    assert [cache.steps for cache in model.caches] == [19] * 3
    assert all(cache.closed for cache in model.caches)
    assert (prefill.engine.runs, decode.engine.runs) == (2, 2 * 19)
    assert prefill.rate(prefill.engine) == pytest.approx(80 / prefill.engine.p50 * 1e3)


def test_a_decoder_that_cannot_generate_is_measured_in_prefill_alone() -> None:
    model = SmallDecoder()
    model.manifest["cache"] = None
    report = bench(model, rounds=1)
    assert [case.name for case in report.cases] == ["prefill 80"]
    assert set(model.prompts) == {80}


def test_a_decoder_gets_as_many_rows_as_it_takes() -> None:
    model = SmallDecoder()
    model.manifest["ranges"]["batch"] = [3, 4]
    module = made("LlamaForCausalLM", llama(num_hidden_layers=1, max_position_embeddings=2048))
    prefill, decode = bench(model, module, rounds=1).cases
    assert [prefill.name, decode.name] == ["prefill 80 of 3 rows", "decode 20 of 3 rows, per token"]
    assert (prefill.tokens, decode.tokens) == (240, 3)


def test_eager_decoder_runs_beside_the_engine() -> None:
    module = made("LlamaForCausalLM", llama(num_hidden_layers=1, max_position_embeddings=2048))
    report = bench(SmallDecoder(), module, rounds=1)
    assert all(case.speedup is not None and case.speedup > 0 for case in report.cases)


def test_eager_encoder_runs_beside_the_engine() -> None:
    report = bench(SmallEncoder(), made("BertModel", bert(num_hidden_layers=1)), rounds=1)
    assert [case.name for case in report.cases] == ["1x16", "1x64", "4x64"]
    assert all(case.speedup is not None and case.speedup > 0 for case in report.cases)


def test_machine_says_what_matters() -> None:
    machine = describe(2)
    assert machine["threads"] == 2
    assert machine["cpu"]
    assert {"os", "python", "numpy", "logical_cpus"} <= machine.keys()


def test_a_folder_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text("raise RuntimeError('no engine here')")
    with pytest.raises(EngineError) as caught:
        fresh_start(tmp_path)
    assert caught.value.found == "RuntimeError: no engine here"


def test_a_decoder_that_its_runtime_refuses_is_an_error_of_the_engine(
    tmp_path: Path,
) -> None:
    """Its cache is not the one that the kernels take: onnxruntime itself says so."""
    with load(tiny.decoder(tmp_path / "decoder").path, threads=1) as model:
        model.cache["layers"] = [{**layer, "heads": 3} for layer in model.cache["layers"]]
        with pytest.raises(EngineError, match="fails while it is measured") as caught:
            bench_decoder(model, None, NullProgress(), rounds=1)
    assert caught.value.where == "ort-cpu"
    assert "76 tokens and 20 new: " in str(caught.value.found)
    assert "lepton-compile verify" in str(caught.value.hint)
