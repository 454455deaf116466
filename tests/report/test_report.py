"""The report: complete as JSON, whole and safe as a page."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.table import Table

from lepton_compile.artifact.manifest import MANIFEST_FILE, PAGE_FILE, REPORT_FILE, UNSIGNED_FILES
from lepton_compile.cli.accuracy_view import verify_tables
from lepton_compile.errors import ArtifactError
from lepton_compile.report import add_bench, render, report_data, write_report
from lepton_compile.report.data import REPORT_FORMAT

VOID = {"meta", "link", "br", "img", "input", "hr"}


def manifest() -> dict[str, Any]:
    return {
        "task": "text-generation",
        "model": {"source": "./<b>model</b>", "architecture": "TinyLM", "parameters": 1234},
        "engines": [{"target": "ort-cpu", "precision": "int4"}],
        "ranges": {"batch": [1, 4], "sequence": [1, 64]},
        "files": {
            "loader.py": {"size": 10, "sha256": "aa"},
            "weights.bin": {"size": 2_000_000, "sha256": "bb"},
        },
        "tools": {"onnxruntime": "1.32.0"},
    }


def passes() -> list[dict[str, Any]]:
    refusal = {"pass_name": "gelu", "node": "layers.0/act <Mul>", "reason": "another constant"}
    entry = {"counts_as": None, "nodes": (9, 7), "seconds": 0.01, "error": None}
    return [
        {**entry, "name": "gelu", "fired": 3, "refusals": ({**refusal, "layers": ("a", "b")},)},
        {**entry, "name": "silu", "fired": 0, "refusals": ()},
    ]


def verified(**changes: Any) -> dict[str, Any]:
    output = {
        "name": "logits",
        "max_abs": 0.5,
        "mean_abs": 0.1,
        "relative": None,
        "cosine": 0.99,
        "cosine_min": 0.9,
        "argmax_agreement": 0.75,
    }
    return {
        "sample": "the sample text",
        "segments": 2,
        "tokens": 200,
        "seconds": 1.5,
        "outputs": [output],
        "perplexity": 10.5,
        "reference_perplexity": 10.0,
        "perplexity_increase": 0.05,
        "argmax_agreement": 0.75,
        "relative_error": None,
        "cosine": 0.99,
        "decode_tokens": 8,
        "decode_agreement": 0.5,
        **changes,
    }


def data(**changes: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "seconds": {"capture": 2.0, "passes": 1.0},
        "capture": {"how": "stamped", "kinds": 2, "notes": []},
        "passes": passes(),
        "verify": verified(),
        "gates": [{"name": "perplexity", "found": 0.05, "demanded": 0.04, "passed": False}],
    }
    return report_data(manifest(), **{**parts, **changes})


class Page(HTMLParser):
    """Text, tags and whether every tag that opens also closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_is_well_formed_and_stands_alone() -> None:
    page = Page(render(data()))
    assert page.open == []
    assert page.links == []
    assert "script" not in page.tags


def test_names_are_escaped() -> None:
    page = Page(render(data()))
    assert "./<b>model</b>" in page.text
    assert "layers.0/act <Mul>" in page.text
    assert "<b>model</b>" not in render(data())


def test_the_page_shows_the_numbers_and_the_refusals() -> None:
    text = Page(render(data())).text
    assert "+5.00% against fp32 PyTorch" in text
    assert "another constant (1)" in text
    assert "layers.0/act <Mul> (2 layers)" in text
    assert "missed" in text
    assert "2.0 MB" in text


@pytest.mark.parametrize(
    ("found", "demanded", "said"),
    [
        (0.9949999, 0.995, "0.9949999 0.995"),
        (0.995, 0.995, "0.995 0.995"),
        (0.0400001, 0.04, "0.0400001 0.04"),
        (0.98, 0.995, "0.98 0.995"),
        (123456.5, 123456.0, "123456.5 123456"),
        (math.nextafter(1, 0), 1.0, "0.9999999999999999 1"),
    ],
)
def test_what_misses_a_demand_by_little_does_not_look_as_if_it_met_it(
    found: float, demanded: float, said: str
) -> None:
    gate = {"name": "cosine", "found": found, "demanded": demanded, "passed": found == demanded}
    verdict = "kept" if gate["passed"] else "missed"
    assert f"cosine {said} {verdict}" in Page(render(data(gates=[gate]))).text
    *_, table = verify_tables({**verified(), "precision": "int8", "gates": [gate]})
    assert isinstance(table, Table)
    row = [next(iter(column.cells)) for column in table.columns]
    assert row == ["cosine", *said.split(), verdict]


@pytest.mark.parametrize(
    "changes",
    [
        {"verify": None, "gates": []},
        {"passes": [], "seconds": {}},
        {"verify": verified(perplexity=None, decode_tokens=0, argmax_agreement=None)},
        {"capture": {}},
    ],
)
def test_a_part_that_was_left_out_leaves_a_whole_page(changes: dict[str, Any]) -> None:
    assert Page(render(data(**changes))).open == []


def test_the_same_argmax_is_of_scores_and_not_of_what_was_generated() -> None:
    """The lowest of both, the report's own number, stood there as rows of scores."""
    text = Page(render(data(verify=verified(argmax_agreement=0.5)))).text
    assert "Same argmax 75.00% of rows of scores" in text
    assert "8 tokens, 50.00% of them the reference's choice" in text


def test_passes_that_found_nothing_are_folded_into_a_line() -> None:
    page = render(data())
    text = Page(page).text
    assert "gelu 3 1 9 → 7 10 ms Found nothing to do (1, 10 ms) silu" in text
    assert page.count("silu") == 1
    assert "Found nothing" not in Page(render(data(passes=passes()[:1]))).text


@pytest.mark.parametrize(
    ("capture", "said"),
    [
        ({"how": "stamped", "kinds": 2, "notes": []}, "each kind of layer once"),
        ({"how": "imported", "kinds": 0, "notes": ["a", "b"]}, "this is an ONNX file notes a; b"),
        ({"how": "of a later version", "base": "/r"}, "of a later version recipe's folder /r"),
    ],
)
def test_how_a_graph_was_made_is_said_in_words(capture: dict[str, Any], said: str) -> None:
    text = Page(render(data(capture=capture))).text
    assert said in text
    assert ("kinds of layers 2" in text) == bool(capture.get("kinds"))


def test_a_printed_page_shows_bars_and_whole_tables() -> None:
    """Browsers leave backgrounds out, and paper does not scroll."""
    _, _, printed = render(data()).partition("@media print")
    assert "print-color-adjust: exact" in printed
    assert ".card { overflow: visible; }" in printed


def test_bench_figures_are_shown() -> None:
    timing = {"runs": 3, "p50": 1.5, "p90": 2.0, "p99": 2.5}
    case = {"name": "1x16", "engine_ms": timing, "eager_ms": None, "speedup": None}
    for threads, told in ((2, "2 threads."), (1, "1 thread."), (None, "default threads.")):
        machine = {"cpu": "A Processor", "threads": threads}
        text = Page(render(data(bench={"cases": [case], "machine": machine}))).text
        assert "1x16 1.5 2 2.5" in text
        assert f"A Processor, {told}" in text


def test_what_a_builder_said_is_escaped_and_folded() -> None:
    layer = {"name": "l.0/<op>", "type": "CAST", "precision": "HALF", "outputs": [["y", "", [2]]]}
    log = [["WARNING", "a line & more"]]
    builders = {"ort-cpu": {"version": "1", "layers": [layer, layer], "log": log}}
    page = Page(render(data(builders=builders)))
    assert page.open == []
    assert "details" in page.tags
    assert "executed: false (built, never run)" in page.text
    assert "CAST HALF 2" in page.text
    assert "l.0/<op> CAST HALF 2" in page.text
    assert "WARNING: a line & more" in page.text


def test_bits_that_were_chosen_are_a_table() -> None:
    kind = {"name": "down_proj", "four": 7, "eight": 11, "kept": 0, "estimated": 0.0123}
    choice = {
        "measure": "1 - cosine",
        "budget": 0.03,
        "estimated": 0.02,
        "measured": 0.025,
        "tries": 3,
        "bytes": 250_000_000,
        "kinds": [kind],
    }
    text = Page(render(data(choices={"ort-cpu": choice}))).text
    assert "Bits chosen for ort-cpu" in text
    assert "down_proj 7 11 0 0.0123" in text
    assert "0.025 measured, 0.03 allowed" in text
    assert "250.0 MB of weights" in text


def test_passes_of_several_targets_stand_apart() -> None:
    several = [{**entry, "target": target} for target in ("trt", "ort-cpu") for entry in passes()]
    text = Page(render(data(passes=several))).text
    assert text.count("pass fired refused") == 2
    assert text.index("ort-cpu pass fired") < text.index("trt pass fired")


def test_a_failure_a_remark_and_further_engines_are_shown() -> None:
    other = {**verified(), "target": "ort-cuda", "gates": [], "sample": "another text"}
    text = Page(
        render(
            data(
                verify={**verified(), "target": "ort-cpu", "gates": []},
                also_verified=[other],
                remarks=["passes were not compared: <no room>"],
                failure={"message": "1 demanded number was missed", "found": "cosine 0.1"},
            )
        )
    ).text
    assert "No artifact: 1 demanded number was missed found: cosine 0.1" in text
    assert "Note: passes were not compared: <no room>" in text
    assert "ort-cuda 200 tokens in 2 segments of another text" in text


def test_both_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    artifact = SimpleNamespace(path=tmp_path, manifest=SimpleNamespace(as_dict=manifest))
    write_report(artifact, seconds={"capture": 1.0}, capture={}, passes=passes())
    assert sorted(path.name for path in tmp_path.iterdir()) == [PAGE_FILE, REPORT_FILE]
    assert {MANIFEST_FILE, PAGE_FILE, REPORT_FILE} == UNSIGNED_FILES  # which say the same names
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["bytes"] == 2_000_010
    assert [file["name"] for file in found["files"]] == ["weights.bin", "loader.py"]
    assert found["passes"][0]["refusals"][0]["reason"] == "another constant"


def test_what_json_cannot_say_is_null(tmp_path: Path) -> None:
    whole = data(verify=verified(cosine=math.nan, relative_error=math.inf))
    assert whole["verify"]["cosine"] is None
    json.dumps(whole, allow_nan=False)
    assert "not finite" in render(whole)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    artifact = SimpleNamespace(path=tmp_path / "no", manifest=SimpleNamespace(as_dict=manifest))
    with pytest.raises(ArtifactError, match="report cannot be written"):
        write_report(artifact, seconds={}, capture={}, passes=[])


BENCH = {"cases": [], "machine": {"cpu": "A Processor", "threads": 2}}


@pytest.mark.parametrize(
    "report",
    [
        *({"format": REPORT_FORMAT}, data() | {"engines": None}, data() | {"passes": 3}),
        *(data() | {"stages": [{"seconds": "x"}]}, data() | {"format": 1}, [1]),
    ],
    ids=["empty", "engines", "passes", "stages", "format", "list"],
)
def test_a_report_that_measurements_cannot_go_into_stays(tmp_path: Path, report: object) -> None:
    text = json.dumps(report)
    (tmp_path / "report.json").write_text(text)
    assert not add_bench(tmp_path, BENCH)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"report.json": text}


def test_measurements_go_into_a_report(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(data()))
    assert add_bench(tmp_path, BENCH)
    assert json.loads((tmp_path / "report.json").read_text())["bench"] == BENCH
    assert "A Processor" in (tmp_path / "report.html").read_text()
