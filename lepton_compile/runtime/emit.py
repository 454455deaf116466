"""Put the loader of an artifact together: one file, from the modules of this package.

A part is a module whose body follows its docstring, imports and ``__all__``. Its docstring becomes
a heading, the imports of all parts are gathered at the top, and imports of one part by another are
left out, wherever they stand: in the one file all names are there. Nothing else is changed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ["PARTS", "TENSORRT_PARTS", "emit", "loader_source"]

PACKAGE = "lepton_compile.runtime"
PARTS = (
    "loader_guard",
    "loader",
    "loader_generate",
    "loader_text",
    "loader_tasks",
    "loader_ort",
    "loader_script",
)
"""In the order of the file; the last one ends with what a script does."""

TENSORRT_PARTS = (
    "loader_tensorrt",
    "loader_cuda",
    "loader_rtx_cache",
    "loader_plan",
    "loader_inference",
)
"""Come before the last, where an artifact has an engine of TensorRT or TensorRT-RTX."""


def emit(folder: Path, targets: Collection[str] = ()) -> None:
    """Write ``loader.py`` into ``folder``, with what engines for ``targets`` need."""
    (folder / "loader.py").write_text(loader_source(targets), "utf-8")


def loader_source(targets: Collection[str] = ()) -> str:
    """The text of the loader for an artifact with engines for ``targets``."""
    tensorrt = any(target.startswith("trt") for target in targets)
    parts = [_Part(name) for name in (*PARTS[:-1], *TENSORRT_PARTS * tensorrt, PARTS[-1])]
    clashes = _twice(name for part in parts for name in part.names())
    assert not clashes, f"these names stand in two parts of the loader: {clashes}"
    face = next(part for part in parts if part.name == "loader")
    return "\n".join(
        [
            "# SPDX-License-Identifier: Apache-2.0",
            f'"""{face.docstring}"""\n',
            "from __future__ import annotations\n",
            *_imports(parts),
            f"\n{face.exports()}\n",
            *(part.text() for part in parts),
        ]
    )


class _Part:
    """One module of the loader, as source and as tree."""

    def __init__(self, name: str) -> None:
        self.name, self.source = name, Path(__file__).with_name(f"{name}.py").read_text("utf-8")
        self.tree = ast.parse(self.source)
        self.docstring = ast.get_docstring(self.tree, clean=False) or ""

    def imports(self) -> Iterator[tuple[str, str]]:
        """(module, name) of each import at the top; no name for ``import module``."""
        for node in self.tree.body:
            if isinstance(node, ast.Import):
                yield from ((ast.unparse(alias), "") for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not _is_ours(node):
                yield from ((str(node.module), ast.unparse(alias)) for alias in node.names)

    def names(self) -> Iterator[str]:
        """What the part defines."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Assign | ast.AnnAssign) and not _is_exports(node):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = (n for target in targets for n in ast.walk(target))
                yield from (n.id for n in names if isinstance(n, ast.Name))

    def exports(self) -> str:
        """The source of its ``__all__``."""
        (found,) = (node for node in self.tree.body if _is_exports(node))
        return ast.get_source_segment(self.source, found) or ""

    def text(self) -> str:
        """The heading and the body."""
        lines = self.source.splitlines()
        head = [node for node in self.tree.body if _is_head(node)]
        dropped = {n for node in ast.walk(self.tree) if _is_ours(node) for n in _lines(node)}
        dropped |= {n + 1 for n in dropped if n + 1 <= len(lines) and not lines[n]}
        body = range((head[-1].end_lineno or 0) + 1, len(lines) + 1)
        kept = "\n".join(lines[number - 1] for number in body if number not in dropped)
        rule = f"# ---- {self.name.removeprefix('loader_')} ".ljust(100, "-")
        words = self.docstring.strip() if self.name != "loader" else "What callers use."
        heading = "\n".join(f"# {line}".rstrip() for line in words.splitlines())
        return f"{rule}\n{heading}\n\n{kept.strip()}\n\n"


def _imports(parts: list[_Part]) -> list[str]:
    """All imports, each once: the standard library's, then the others'."""
    found = {entry for part in parts for entry in part.imports() if entry[0] != "__future__"}
    modules = sorted({module for module, _ in found}, key=str.lower)
    blocks: tuple[list[str], list[str]] = [], []
    for module in modules:
        block = blocks[module.split(".")[0].split()[0] not in sys.stdlib_module_names]
        names = sorted(name for where, name in found if where == module)
        if "" in names:  # one part may take the module, another a name of it
            block.append(f"import {module}")
        if any(names):
            block.append(f"from {module} import {', '.join(filter(None, names))}")
    plain = [sorted(block, key=lambda line: (line.startswith("from"), line)) for block in blocks]
    return [*plain[0], "", *plain[1]]


def _lines(node: ast.AST) -> range:
    assert isinstance(node, ast.stmt)
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _is_ours(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE)


def _is_exports(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _is_head(node: ast.stmt) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom) or _is_exports(node)


def _twice(names: Iterator[str]) -> list[str]:
    found = list(names)
    return sorted({name for name in found if found.count(name) > 1})
