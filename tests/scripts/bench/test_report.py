"""Ratios and tables of the comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peerbench.report import machine, ratios, save, versions
from peerbench.turns import median


def tool(**values: Any) -> dict[str, Any]:
    return {"median": values, "rounds": [values]}


def test_a_rate_is_compared_with_the_fastest_peer() -> None:
    tools = {
        "lepton int4": tool(decode_tok_s=60.0),
        "slow": tool(decode_tok_s=20.0),
        "fast": tool(decode_tok_s=40.0),
        "broken": {"error": "exit 1"},
    }
    found = ratios("gemma", tools)
    assert found["lepton int4: decode_tok_s"] == {"times": 1.5, "best_peer": "fast"}


def test_a_latency_is_compared_with_the_shortest() -> None:
    tools = {"lepton int8": tool(ms={"1x16": 4.0}), "a": tool(ms={"1x16": 2.0})}
    assert ratios("minilm", tools)["lepton int8: ms.1x16"] == {"times": 0.5, "best_peer": "a"}


def test_peers_that_lost_accuracy_are_also_left_out() -> None:
    tools = {
        "lepton int8": tool(ms={"1x16": 4.0}, cosine=0.996),
        "careless": tool(ms={"1x16": 2.0}, cosine=0.98),
        "careful": tool(ms={"1x16": 8.0}, cosine=0.999),
    }
    found = ratios("minilm", tools)
    assert found["lepton int8: ms.1x16"]["best_peer"] == "careless"
    faithful = found["lepton int8: ms.1x16 (peers with cosine >= 0.995)"]
    assert faithful == {"times": 2.0, "best_peer": "careful"}


def test_without_peers_there_is_nothing_to_compare() -> None:
    assert ratios("gemma", {"lepton int4": tool(decode_tok_s=60.0)}) == {}
    assert ratios("loader", {"lepton": tool(import_ms=1.0), "b": tool(import_ms=1.0)}) == {}


def test_the_median_goes_into_mappings_and_skips_what_is_no_number() -> None:
    runs = [
        {"ms": {"a": n}, "load_s": 10 * n, "tokens": [1], "path": "x", "none": None}
        for n in (3, 1, 2)
    ]
    assert median(runs) == {"ms": {"a": 2}, "load_s": 20}


def test_suites_of_one_day_share_a_file(tmp_path: Path) -> None:
    tools = {"lepton": tool(import_ms=12.5), "other": {"error": "first\nlast words"}}
    suite = {"conditions": {"prompt": 512}, "tools": tools}
    first = save(tmp_path, {"loader": suite}, {"threads": 2, "rounds": 3})
    second = save(tmp_path, {"gemma": suite}, {"threads": 2, "rounds": 1})
    assert first == second
    saved = json.loads(first.read_text())
    assert set(saved["suites"]) == {"loader", "gemma"}
    assert saved["suites"]["loader"]["rounds"] == 3
    table = first.with_suffix(".md").read_text()
    assert "| lepton | 12.5 |" in table
    assert "- other failed: last words" in table
    assert "prompt 512" in table


def test_results_are_readable_and_name_no_folder(tmp_path: Path) -> None:
    tools = {
        "lepton": {"median": {}, "rounds": [{"tokens": [1, 2, 30]}]},
        "other": {"error": 'File "/home/me/bench/runner.py", line 3\nno/luck at 1.5/2'},
    }
    text = save(tmp_path, {"gemma": {"conditions": {}, "tools": tools}}, {}).read_text()
    assert '"tokens": [ 1, 2, 30 ]' in text
    assert "/home" not in text
    assert json.loads(text)["suites"]["gemma"]["tools"]["other"]["error"] == (
        'File "runner.py", line 3\nno/luck at 1.5/2'
    )


def test_the_machine_is_described_but_not_named() -> None:
    about = machine()
    assert about["cores"] >= 1
    assert about["memory_gb"] > 0
    assert not any("host" in key or "node" in key for key in about)


@pytest.mark.parametrize("name", ["project", "lepton", "llamacpp", "openvino"])
def test_versions_come_from_the_pins(name: str) -> None:
    assert versions()[name]
