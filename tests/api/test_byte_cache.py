"""Decoders for the CPU whose keys and values are kept in bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton_compile as lc
from lepton_compile.errors import LeptonError, RecipeError
from tests.plugins.cpu_library import needs_library
from tests.small import llama, saved

pytestmark = needs_library

SHAPE = {"head_dim": 64, "vocab_size": 4096, "num_hidden_layers": 2}
ROW = 64 + 2 * 2
PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [*range(40, 90)]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("LlamaForCausalLM", llama(**SHAPE), tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory) -> lc.Artifact:
    recipe = {
        "model": str(model),
        "quantize": {"bits": 8, "cache": "int8"},
        "passes": {"expect": {"lower-byte-cache": 2, "cache-format": 2}},
    }
    return lc.build(recipe, output=tmp_path_factory.mktemp("bytes") / "out", tactics="default")


def test_the_manifest_says_what_is_kept(built: lc.Artifact) -> None:
    (engine,) = built.manifest.engines
    assert engine["cache"] == {"dtype": "int8", "group": 32}
    past = [v for v in engine["io"]["inputs"] if v["name"].startswith("past_key_values")]
    assert {(v["dtype"], v["shape"][3]) for v in past} == {("int8", ROW)}
    assert engine["compared"]["engine"] is True


def test_answers_are_those_of_halves(built: lc.Artifact, model: Path, tmp_path: Path) -> None:
    """One row and many, as a stream of steps and as a whole."""
    halves = lc.build({"model": str(model), "quantize": "int8"}, output=tmp_path / "halves")
    with lc.load(built.path, threads=1) as ours, lc.load(halves.path, threads=1) as theirs:
        expected = theirs.logits(PROMPTS)
        found = ours.logits(PROMPTS)
        for row, (one, other) in enumerate(zip(found, expected, strict=True)):
            length = len(PROMPTS[row])
            assert one[:length] == pytest.approx(other[:length], abs=0.05)
        together = [one.tokens for one in ours.generate(PROMPTS, max_new_tokens=8)]
        alone = [ours.generate(ids, max_new_tokens=8).tokens for ids in PROMPTS]
        assert together == alone


def test_a_past_goes_in_as_it_came_out(built: lc.Artifact) -> None:
    ids = PROMPTS[2]
    with lc.load(built.path, threads=1) as opened:
        whole = opened.run({"input_ids": [ids]})
        first = opened.run({"input_ids": [ids[:-1]]})
        past = {
            name.replace("present", "past_key_values"): array[:, :, : len(ids) - 1]
            for name, array in first.items()
            if name.startswith("present")
        }
        assert {array.dtype for array in past.values()} == {np.dtype(np.int8)}
        then = opened.run({"input_ids": [ids[-1:]], **past})
        assert then["logits"][0, -1] == pytest.approx(whole["logits"][0, -1], abs=0.02)
        with pytest.raises(lc.LoaderError, match="takes int8"):
            opened.run({"input_ids": [ids[-1:]], **{n: a[..., :64] for n, a in past.items()}})


@pytest.mark.parametrize(
    "changed",
    [
        {"quantize": {"cache": "int8"}},
        {"kernels": "builtin"},
        {"quantize": {"bits": 8, "cache": "fp8"}},
    ],
    ids=str,
)
def test_what_no_kernel_does_is_refused(changed: Any, model: Path, tmp_path: Path) -> None:
    recipe = {"model": str(model), "quantize": {"bits": 8, "cache": "int8"}, **changed}
    with pytest.raises(RecipeError, match="has no kernels for") as caught:
        lc.build(recipe, output=tmp_path / "out")
    assert caught.value.where == "quantize.cache"
    assert any("int8 for ort-cpu" in each for each in caught.value.available)


def test_a_pass_that_is_left_out_and_asked_for(model: Path, tmp_path: Path) -> None:
    """Caches in fp32 would be the answer to a wish for 8 bits."""
    recipe = {"model": str(model), "quantize": {"bits": 8, "cache": "int8"}}
    with pytest.raises(RecipeError, match="leaves out 'lower-byte-cache'") as caught:
        lc.build(recipe | {"passes": {"disable": ["lower-byte-cache"]}}, output=tmp_path / "out")
    assert caught.value.where == "passes.disable"


def test_linear_layers_of_onnxruntime_are_no_hindrance(model: Path, tmp_path: Path) -> None:
    recipe = {"model": str(model), "quantize": {"bits": 8, "cache": "int8"}}
    changed = recipe | {"passes": {"disable": ["lower-native-linear"]}}
    made = lc.build(changed, output=tmp_path / "out", check=False, verify=False)
    assert made.manifest.engines[0]["cache"] == {"dtype": "int8", "group": 32}


def test_a_target_of_its_own_is_told_at_its_own_place(model: Path, tmp_path: Path) -> None:
    own = {"ort-cpu": {"quantize": {"bits": 8, "cache": "fp8"}}}
    recipe = {"model": str(model), "per_target": own}
    with pytest.raises(RecipeError, match="has no kernels for") as caught:
        lc.build(recipe, output=tmp_path / "out")
    assert caught.value.where == "per_target.ort-cpu.quantize.cache"


def test_heads_that_have_no_whole_blocks_fail_the_build(tmp_path: Path) -> None:
    folder = saved("LlamaForCausalLM", llama(**SHAPE | {"head_dim": 16}), tmp_path / "model")
    recipe = {"model": str(folder), "quantize": {"bits": 8, "cache": "int8"}}
    with pytest.raises(LeptonError) as caught:
        lc.build(recipe, output=tmp_path / "out", verify=False)
    assert "heads are no multiple of 32" in str(caught.value)


def test_it_is_rebuilt(built: lc.Artifact) -> None:
    assert lc.rebuild(built.path).manifest.files == built.manifest.files


def test_a_plan_knows_it(model: Path) -> None:
    recipe = {"model": str(model), "quantize": {"bits": 8, "cache": "int8"}}
    (engine,) = lc.plan(recipe).engines
    assert not engine.refusals
