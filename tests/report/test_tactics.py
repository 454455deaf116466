"""What a report says of kernels that were chosen by what was measured."""

from __future__ import annotations

import re
from typing import Any

from lepton_compile.report import render, report_data, tactic_sections
from tests.report.test_report import Page, data, manifest


def _candidate(kernel: str, **changes: Any) -> dict[str, Any]:
    given = {
        "kernel": kernel,
        "name": {"native": "our kernel", "nbits": "MatMulNBits"}[kernel],
        "seconds": {"1": 1.234e-4, "128": 0.0123},
        "error": 0.0107,
        "bytes": 1000,
        "gain": 1.0,
        "vetoed": None,
    }
    return {**given, **changes}


def _entry(**changes: Any) -> dict[str, Any]:
    layer = {
        "layer": "640 to <640>",
        "kernel": "native",
        "name": "our kernel",
        "usual": "native",
        "why": "none is clearly better",
        "kept": False,
        "candidates": [
            _candidate("native"),
            _candidate("nbits", gain=2.5, vetoed="off by 5.00% of the result", seconds={}),
        ],
        "failed": [{"name": "DynamicQuantizeMatMul", "reason": "no such op"}],
    }
    given = {
        "target": "ort-cpu",
        "machine": {"processor": "Processor 9000"},
        "objective": "latency",
        "budget": 0.01,
        "phases": [
            {"name": "write", "rows": 1, "times": 128},
            {"name": "read", "rows": 128, "times": 1.0},
        ],
        "layers": [layer],
        "unmeasured": [
            {"layer": "64 to 64", "reason": "too small to be timed"},
            {"layer": "64 to 96", "reason": "too small to be timed"},
        ],
    }
    return {**given, **changes}


def test_a_row_for_each_candidate() -> None:
    (section,) = tactic_sections([_entry()])
    assert section["title"] == "for latency, on one thread of Processor 9000"
    assert section["phases"] == ["1 row", "128 rows"]
    assert section["chosen"] == [("640 to <640>", "our kernel", "none is clearly better")]
    assert section["rows"] == [
        (
            "640 to <640>",
            "our kernel",
            ["123 µs", "12,300 µs"],
            "1.07%",
            "1.00",
            "taken: none is clearly better",
        ),
        ("", "MatMulNBits", ["", ""], "1.07%", "2.50", "off by 5.00% of the result"),
        ("", "DynamicQuantizeMatMul", ["", ""], "", "", "left out: no such op"),
    ]
    assert section["left"] == ["too small to be timed: 64 to 64; 64 to 96"]


def test_the_page_has_the_table() -> None:
    page = Page(render(data(tactics=[_entry()])))
    assert page.open == []
    for words in ("640 to <640>", "123 µs", "left out: no such op", "64 to 64; 64 to 96"):
        assert words in page.text
    assert "Kernels of linear layers" not in Page(render(data())).text


def test_a_verdict_keeps_a_width_to_be_read_at() -> None:
    """On a narrow screen the table scrolls: a word a line made each row as tall as the screen."""
    page = render(data(tactics=[_entry()]))
    (width,) = re.findall(r"td\.said { min-width: (\d+)px; }", page)
    assert int(width) >= 200
    assert page.count('<td class="said">') == 3
    assert '<td class="said">left out: no such op</td>' in page


def test_an_error_that_is_no_number_is_told() -> None:
    layer = _entry()["layers"][0] | {"candidates": [_candidate("native", error=float("nan"))]}
    parts: dict[str, Any] = {"seconds": {}, "capture": {}, "passes": []}
    found = report_data(manifest(), tactics=[_entry(layers=[layer])], **parts)
    assert tactic_sections(found["tactics"])[0]["rows"][0][3] == "not finite"
    assert "not finite" in Page(render(found)).text


def test_nothing_is_said_where_nothing_was_asked() -> None:
    assert tactic_sections([_entry(layers=[], unmeasured=[])]) == []


def test_a_report_of_before_is_shown_without() -> None:
    old = {name: value for name, value in data().items() if name != "tactics"}
    assert "Kernels of linear layers" not in Page(render(old)).text


def test_where_a_phone_shows_no_head_each_number_says_what_it_is() -> None:
    text = render(data(tactics=[_entry()]))
    (table,) = re.findall(r'<table class="kernels">.*?</table>', text, re.DOTALL)
    head, *rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    numbers = re.findall(r'<th class="right[^"]*">(.*?)</th>', head)
    assert numbers == ["1 row", "128 rows", "error", "times usual"]
    assert len(rows) == 3
    for row in rows:
        assert re.findall(r'<td class="right[^"]*" data-of="(.*?)">', row) == numbers
    (narrow,) = re.findall(r"@media \(max-width: 560px\) {.*?\n}", text, re.DOTALL)
    assert "attr(data-of)" in narrow
