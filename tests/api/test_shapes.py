"""Engines whose ranges do not begin at 1 are built, checked, verified and measured within them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton_compile as lc
from lepton_compile.numerics.bench import bench
from tests.small import bert, byte_tokenizer, llama, saved


@pytest.mark.parametrize(
    "shapes",
    [{"batch": "16..20", "sequence": "48..64"}, {"batch": 16, "sequence": 64}],
    ids=["ranges", "fixed"],
)
def test_an_encoder_that_takes_no_small_batches(tmp_path: Path, shapes: dict[str, Any]) -> None:
    model = saved("BertModel", bert(), tmp_path / "model")  # 8 texts of random ids, the longest 64
    made = lc.build(
        model=str(model), task="feature-extraction", shapes=shapes, output=tmp_path / "out"
    )
    assert made.manifest.engines[0]["compared"] == {"passes": True, "engine": True}
    least, most = made.manifest.ranges["batch"]
    with lc.load(made.path, threads=1) as engine:
        cases = bench(engine, artifact=made.path, rounds=1).cases
    assert {case.rows for case in cases} == {least, most}


def test_the_sequence_of_a_decoder_begins_at_1(tmp_path: Path) -> None:
    model = saved("LlamaForCausalLM", llama(vocab_size=260), tmp_path / "model")
    byte_tokenizer(model)
    shapes = {"batch": 2, "sequence": 48}
    made = lc.build(model=str(model), shapes=shapes, output=tmp_path / "out")
    assert made.manifest.engines[0]["compared"] == {"passes": True, "engine": True}
    assert made.manifest.ranges["batch"] == [2, 2]
    assert made.manifest.ranges["sequence"] == [1, 48]
    with lc.load(made.path, threads=1) as engine:
        first, second = engine.generate([[5, 6, 7], [8, 9]], max_new_tokens=4)
        assert [len(first.tokens), len(second.tokens)] == [4, 4]
        assert np.isfinite(engine.run({"input_ids": [[5], [6]]})["logits"]).all()
        prefill, _ = bench(engine, artifact=made.path, rounds=1).cases
    assert prefill.name == "prefill 38 of 2 rows"
