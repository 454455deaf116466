"""Plans of a decoder with one profile for prompts and steps, beside those with two."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lepton_compile as lc
from lepton_compile.cli import main
from tests.small import llama, saved

pytest.importorskip("tensorrt_rtx")

ROOM, ROWS, PIECE = 2048, 4, 512


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Artifacts of one tiny random model, by what the recipe says of profiles."""
    folder = tmp_path_factory.mktemp("joint")
    saved("LlamaForCausalLM", llama(max_position_embeddings=ROOM), folder / "model")
    recipe: dict[str, Any] = {
        "model": str(folder / "model"),
        "target": "trt-rtx",
        "quantize": "bf16",
        "shapes": {"batch": f"1..{ROWS}", "sequence": f"1..{ROOM}"},
    }
    for name in ("split", "joint"):
        made = {**recipe, "profiles": name}
        lc.build(made, output=folder / name, check=False, verify=False)
    return {name: folder / name for name in ("split", "joint")}


def entry(root: Path) -> dict[str, Any]:
    (found,) = json.loads((root / "manifest.json").read_text())["engines"]
    return dict(found)


def built(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "report.json").read_text())["builders"]["trt-rtx"])


def test_the_builder_takes_one_profile_for_both(plans: dict[str, Path]) -> None:
    (found,) = entry(plans["joint"])["profiles"]
    assert found["name"] == "joint"
    ids = [found[bound]["input_ids"] for bound in ("min", "opt", "max")]
    assert ids == [[1, 1], [1, 1], [ROWS, PIECE]]
    assert found["max"]["past_key_values.0.key"][0] == ROWS
    names = [profile["name"] for profile in entry(plans["split"])["profiles"]]
    assert names == ["prefill", "decode"]


def test_it_is_smaller_and_the_same_otherwise(plans: dict[str, Path]) -> None:
    sizes = {name: built(root)["plan_bytes"] for name, root in plans.items()}
    assert sizes["joint"] < sizes["split"]
    split, joint = (entry(plans[name]) for name in ("split", "joint"))
    for key in ("io", "aliases", "cache", "attention", "plugin", "compute_capabilities"):
        assert joint[key] == split[key]
    layers = {name: Counter(built(root)["counts"]) for name, root in plans.items()}
    # The last layer keeps the sizes of the others: kept positions are taken once, behind it.
    assert layers["split"] - layers["joint"] == {"GATHER": 1, "CAST": 1}
    assert not layers["joint"] - layers["split"]
    loaders = {(root / "loader.py").read_text() for root in plans.values()}
    assert len(loaders) == 1


def test_memory_is_set_aside_for_no_more_than_two_profiles_take(plans: dict[str, Path]) -> None:
    taken = {name: _activations(built(root)) for name, root in plans.items()}
    assert [len(each) for each in taken.values()] == [2, 1]
    # Each of the two contexts of the other holds what its larger profile takes.
    assert sum(taken["joint"]) <= 2 * max(taken["split"])


def _activations(report: dict[str, Any]) -> list[int]:
    """Bytes that the builder's log names, profile by profile."""
    words = "Total Activation Memory: "
    lines = [text for _, text in report["log"] if text.startswith(words)]
    return [int(line.removeprefix(words).split()[0]) for line in lines]


def test_people_see_it(plans: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(plans["joint"])]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["joint", "input_ids", "1x1", "1x1", f"{ROWS}x{PIECE}"] in rows
    page = (plans["joint"] / "report.html").read_text()
    assert '<td>joint</td><td class="name">input_ids</td>' in page
