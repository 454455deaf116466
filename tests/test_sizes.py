"""Files and functions stay short enough to read in one go."""

from __future__ import annotations

import ast

from tests.sources import functions, percentile, size_report, sources

MAX_FILE = 400
MAX_FUNCTION = 60


def test_files_are_at_most_400_lines() -> None:
    long = {str(m.path): m.lines for m in sources() if m.lines > MAX_FILE}
    assert not long, f"split these by concept: {long}"


def test_functions_are_at_most_60_lines() -> None:
    lengths = [entry for module in sources() for entry in functions(module)]
    long = {name: lines for name, lines in lengths if lines > MAX_FUNCTION}
    assert not long, f"name the steps of these: {long}"


def test_every_module_says_what_it_is() -> None:
    silent = [m.name for m in sources() if not ast.get_docstring(m.tree)]
    assert not silent, f"no module docstring (it comes before the imports): {silent}"


def test_the_walk_finds_the_project() -> None:
    names = {module.name for module in sources()}
    assert {"lepton_compile.errors", "lepton_passes.tensors"} <= names
    assert percentile([5, 1, 3, 2, 4], 0.9) == 5
    assert str(len(names)) in size_report()
