"""Rows that turn by other angles once they are long (LongRoPE) have the answers of a row alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import lepton_compile as lc
from lepton_compile.serving import export_genai
from tests.runtime.test_emit import imported
from tests.small import SIZES

LIMIT, ROOM, NEW = 64, 256, 24
# A cache in place, and one that grows.
KINDS: dict[str, dict[str, Any]] = {
    "shared": {"quantize": "int8"},
    "shared-fp32": {},
    "grown": {"passes": {"disable": ["lower-cached-attention"]}},
}


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(4, 99, length).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Phi-3 whose two sets of frequencies differ much, and where it is."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": LIMIT}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [2.0 + n for n in range(8)]}
    config = transformers.Phi3Config(
        **(SIZES | {"max_position_embeddings": ROOM}),
        num_key_value_heads=2,
        original_max_position_embeddings=LIMIT,
        rope_parameters=rope,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    made = transformers.Phi3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3)
    folder = tmp_path_factory.mktemp("longrope")
    made.save_pretrained(folder)
    return made, folder


def built(folder: Path, output: Path, **more: Any) -> Path:
    how = {"check": False, "verify": False, "tactics": "default", **more}
    return Path(lc.build(model=str(folder), output=output, **how).path)


@pytest.mark.parametrize("kind", ["shared-fp32", "grown"])
def test_an_answer_across_the_limit_is_that_of_transformers(
    kind: str, model: tuple[Any, Path], tmp_path: Path
) -> None:
    module, folder = model
    path = built(folder, tmp_path / "out", **KINDS[kind])
    told = json.loads((path / "manifest.json").read_text())["cache"]
    assert (told["reread"], told["shared"]) == (LIMIT, kind != "grown")
    for length in (LIMIT - NEW, LIMIT - 10, LIMIT - 1, LIMIT, LIMIT + 1):
        ids = torch.tensor([prompt(length)])
        mask = torch.ones_like(ids)
        with torch.no_grad():
            wanted = module.generate(ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
        with lc.load(path, threads=1) as engine:
            found = engine.generate(ids[0].tolist(), max_new_tokens=NEW).tokens
        assert found == wanted[0, length:].tolist(), length


@pytest.mark.parametrize("kind", list(KINDS))
def test_rows_of_both_kinds_have_the_answers_that_they_have_alone(
    kind: str, model: tuple[Any, Path], tmp_path: Path
) -> None:
    path = built(model[1], tmp_path / "out", **KINDS[kind])
    lengths = (20, LIMIT - 3, LIMIT + 40, LIMIT - 12, LIMIT)
    rows = [prompt(length, seed) for seed, length in enumerate(lengths)]
    with imported(path / "loader.py").load(path, threads=1) as engine:
        alone = [engine.generate(row, max_new_tokens=NEW).tokens for row in rows]
        ends = alone[1][8]  # one that leaves early
        for _ in range(2):  # in buffers of before, too
            beside = engine.generate(rows, max_new_tokens=NEW)
            assert [row.tokens for row in beside] == alone
        some = engine.generate(rows, max_new_tokens=NEW, stop_tokens=[ends])
        for row, whole in zip(some, alone, strict=True):
            end = whole.index(ends) if ends in whole else NEW
            assert row.tokens == whole[:end]


def test_within_the_limit_nothing_is_read_anew(model: tuple[Any, Path], tmp_path: Path) -> None:
    path = built(model[1], tmp_path / "out", shapes={"sequence": f"1..{LIMIT}"})
    assert "reread" not in json.loads((path / "manifest.json").read_text())["cache"]
    assert "class Rereads" not in (path / "loader.py").read_text()


def test_genai_which_reads_nothing_anew_is_told_the_limit(
    model: tuple[Any, Path], tmp_path: Path
) -> None:
    path = built(model[1], tmp_path / "out")
    export_genai(path, tmp_path / "genai")
    config = json.loads((tmp_path / "genai/genai_config.json").read_text())
    assert config["model"]["context_length"] == LIMIT
    assert config["search"]["max_length"] == LIMIT
