"""The project's own Python files, parsed: what the structural tests walk."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lepton_compile.collection import uncollected

__all__ = [
    "REPOSITORY",
    "SOURCE_ROOTS",
    "Module",
    "functions",
    "percentile",
    "size_report",
    "sources",
]

REPOSITORY = Path(__file__).resolve().parent.parent

# Import package -> the folder that holds it.
SOURCE_ROOTS = {
    "lepton_compile": REPOSITORY,
    "lepton_passes": REPOSITORY / "passes",
    "lepton_plugins": REPOSITORY / "plugins",
    "lepton_recipes": REPOSITORY / "recipes",
}


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, where it is, its text and its syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def lines(self) -> int:
        return self.text.count("\n")


def parse(name: str, path: Path, text: str) -> Module:
    """A module from its text, so that tests can also make one up."""
    return Module(name, path, text, ast.parse(text, str(path)))


@cache
def sources() -> tuple[Module, ...]:
    """Every module of the four import packages."""
    with uncollected():
        return tuple(_parsed())


def _parsed() -> Iterator[Module]:
    for package, root in SOURCE_ROOTS.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield parse(name, path, path.read_text(encoding="utf-8"))


def functions(module: Module) -> Iterator[tuple[str, int]]:
    """Name and length in lines, decorators left out, of every function in ``module``."""
    waiting: list[ast.AST] = [module.tree]
    while waiting:  # statements alone: there are ten times as many other nodes
        node = waiting.pop()
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            waiting += getattr(node, block, ())
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{module.name}:{node.name}", (node.end_lineno or 0) - node.lineno + 1


def percentile(values: list[int], share: float) -> int:
    """The value below which ``share`` (0..1) of ``values`` lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def size_report() -> str:
    """One line: median, 90th percentile and maximum of files and of functions."""
    files, lengths = list[int](), list[int]()
    with uncollected():
        for module in _parsed():  # each is gone before the next
            files.append(module.lines)
            lengths += [length for _, length in functions(module)]

    def three(values: list[int]) -> str:
        middle = statistics.median(values)
        return f"median {middle:g}, p90 {percentile(values, 0.9)}, max {max(values)}"

    of_files = f"{len(files)} files, {three(files)} lines"
    return f"sizes: {of_files}; {len(lengths)} functions, {three(lengths)}"
