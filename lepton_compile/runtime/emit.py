"""Put the loader of an artifact together: one file, from the modules of this package.

A part is a module whose body follows its docstring, imports and ``__all__``. Its docstring becomes
a heading, the imports of all parts are gathered at the top, and imports of one part by another are
left out, wherever they stand: in the one file all names are there. Nothing in it is for type
checkers alone, or hidden from them, for none reads it.

A part that an artifact has no use for is left out, and what needs it goes with it: the innermost
function, method or ``if`` that imports it. So is an ``if`` for other tasks, and a parameter whose
line says that it is for another one; of an ``if`` for this task what is in it stays. The classes
that ``Model`` inherits from become one: their methods stand in it. ``load`` imports numpy for the
whole file, once the artifact's files are checked.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeGuard

from lepton_compile.runtime.parts import parts_for

__all__ = ["emit", "loader_source"]

PACKAGE = "lepton_compile.runtime"
WIDTH = 100  # of the lines that set parts apart
INDENT = 4
NUMPY = "numpy as np"
OF_TASK = re.compile(r"  # for (\S+)$")
HIDDEN = re.compile(r"^    if not TYPE_CHECKING:.*\n\n((?: {8}.*\n|\n)+)", re.MULTILINE)


def emit(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``loader.py`` into ``folder``, with what the artifact of ``manifest`` needs."""
    (folder / "loader.py").write_text(loader_source(manifest), "utf-8")


def loader_source(manifest: Mapping[str, Any]) -> str:
    """The text of the loader for the artifact that ``manifest`` describes."""
    names = parts_for(manifest)
    parts = [_Part(name, names, manifest.get("task", "")) for name in names]
    face = next(part for part in parts if part.name == "loader")
    methods = [text for base in face.bases() for part in parts if (text := part.take(base))]
    made = re.findall(r"^    def (\w+)", "\n".join(methods), re.MULTILINE)
    clashes = _twice([name for part in parts for name in part.names()]) + _twice(made)
    assert not clashes, f"these names stand in two parts of the loader: {clashes}"
    return (
        "\n".join(
            [
                "# SPDX-License-Identifier: Apache-2.0",
                f'"""{face.docstring}"""\n',
                "from __future__ import annotations\n",
                *_imports(parts),
                f"{face.exports()}\n",
                *filter(None, (part.text(methods if part is face else []) for part in parts)),
            ]
        ).rstrip("\n")
        + "\n"
    )


class _Part:
    """One module of the loader, as source and as tree; ``emitted`` are all that are needed."""

    def __init__(self, name: str, emitted: Iterable[str], task: str) -> None:
        self.task = SimpleNamespace(task=task)
        self.name, (self.source, self.tree, self.parents) = name, _parsed(name)
        self.docstring = ast.get_docstring(self.tree, clean=False) or ""
        self.emitted = {f"{PACKAGE}.{name}" for name in emitted}
        self.taken: set[int] = set()  # Lines that stand elsewhere.

    def bases(self) -> list[str]:
        """What its last class, which is ``Model``, is made of; the first to be read comes first."""
        model = self.tree.body[-1]
        assert isinstance(model, ast.ClassDef)
        return [ast.unparse(base) for base in reversed(model.bases)]

    def take(self, base: str) -> str:
        """The methods of class ``base``, which then is no class of its own; nothing without it."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == base:
                self.taken.update(_lines(node))
                return self._kept(range(_lines(node.body[1]).start, (node.end_lineno or 0) + 1))
        return ""

    def names(self) -> Iterator[str]:
        """What the part defines."""
        for node in self.tree.body:
            if node.lineno in self.taken:
                continue
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Assign | ast.AnnAssign) and not _is_exports(node):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = (n for target in targets for n in ast.walk(target))
                yield from (n.id for n in names if isinstance(n, ast.Name))

    def imports(self) -> Iterator[tuple[str, str]]:
        """(module, name) of each import at the top; no name for ``import module``."""
        names = (node for node in self.parents if isinstance(node, ast.Name))
        used = {node.id for node in names if node.lineno not in self.dropped}
        for node in self.tree.body:
            if not isinstance(node, ast.Import | ast.ImportFrom) or _is_ours(node):
                continue
            module = "" if isinstance(node, ast.Import) else str(node.module)
            for alias in node.names:
                text = ast.unparse(alias)
                if (alias.asname or alias.name.split(".")[0]) in used:
                    yield (module, text) if module else (text, "")

    def exports(self) -> str:
        """The source of its ``__all__``."""
        (found,) = (node for node in self.tree.body if _is_exports(node))
        return ast.get_source_segment(self.source, found) or ""

    def body(self) -> str:
        """What is left of the source."""
        head = [node for node in self.tree.body if _is_head(node)]
        end = len(self.source.splitlines()) + 1
        lines = (n for n in range((head[-1].end_lineno or 0) + 1, end) if n not in self.taken)
        return self._kept(lines)

    def _kept(self, numbers: Iterable[int]) -> str:
        lines = self.source.splitlines()
        left = (n for n in numbers if n not in self.dropped)
        kept = (OF_TASK.sub("", lines[n - 1][INDENT * self._out[n] :]) for n in left)
        return re.sub("\n{4,}", "\n\n\n", "\n".join(kept).strip("\n"))

    @cached_property
    def _out(self) -> Counter[int]:
        """How many steps a line moves out of an ``if`` that this task always gets into."""
        return Counter(n for node in self.parents if self._fate(node) for n in _lines(node))

    @cached_property
    def dropped(self) -> set[int]:
        """Numbers of the lines that are left out, and of a single blank line behind each piece."""
        lines = [*self.source.splitlines(), "", ""]
        found = {n for node in self._needless() for n in _lines(node)}
        for number, line in enumerate(lines, 1):
            if (of := OF_TASK.search(line)) and of[1] != self.task.task:
                found.add(number)
        for node in self.parents:
            if isinstance(node, ast.If) and self._fate(node):
                found.update(range(node.lineno, node.body[0].lineno))
        return found | {n + 1 for n in found if not lines[n] and lines[n + 1]}

    def _needless(self) -> Iterator[ast.AST]:
        """Imports of other parts; with those of parts that are left out, all that needs them."""
        for node in self.parents:
            needs = node
            if _is_ours(node) and node.module not in self.emitted and node not in self.tree.body:
                while not isinstance(needs, ast.FunctionDef | ast.If):
                    needs = self.parents[needs]
            if _is_ours(node) or self._fate(node) is False:
                assert not getattr(needs, "orelse", []), (
                    f"{self.name}: an else of {ast.unparse(node)}"
                )
                yield needs

    def _fate(self, node: ast.AST) -> bool | None:
        """False of an ``if`` that only other tasks, or type checkers, get into; True of one that
        this task always does, or that asks for a call that it has; None of all else."""
        asked = ast.unparse(node.test) if isinstance(node, ast.If) else ""
        if asked == "TYPE_CHECKING":
            return False
        if asked.startswith("hasattr(Model, "):  # without the call there is no part for it either
            return True
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Compare)):
            return None
        known = {"self": self.task, "model": self.task}
        return bool(eval(asked, known)) if ".task " in asked else None

    def text(self, methods: list[str]) -> str:
        """The body below a heading, which a part that is one function or class can do without."""
        body, count = self.body(), len([*self.names()])
        if methods:
            alone = re.sub(r"class Model\([^)]*\):", "class Model:", body)
            body = "\n\n".join([alone, *methods])
        if count < 2:
            return f"{body}\n\n" if count else ""
        words = self.docstring.strip() if self.name != "loader" else "What callers use."
        first, *rest = words.splitlines()
        rule = f"# ---- {self.name.removeprefix('loader_')}: {first} "
        if len(rule) > WIDTH or any(rest):
            rule, rest = f"# ---- {self.name.removeprefix('loader_')} ", [first, *rest]
        heading = [rule.ljust(WIDTH, "-"), *(f"# {line}".rstrip() for line in rest)]
        return "\n".join([*heading, f"{body}\n\n"])


@cache
def _parsed(name: str) -> tuple[str, ast.Module, dict[ast.AST, ast.AST]]:
    """Source and tree of a module, and for each node of the tree the one it stands in."""
    source = Path(__file__).with_name(f"{name}.py").read_text("utf-8")
    source = HIDDEN.sub(lambda found: re.sub("^    ", "", found[1], flags=re.MULTILINE), source)
    tree = ast.parse(source)
    parents = {c: node for node in ast.walk(tree) for c in ast.iter_child_nodes(node)}
    return source, tree, parents


def _imports(parts: list[_Part]) -> list[str]:
    """All imports, each once: those of the standard library, and the place of numpy's."""
    found = {entry for part in parts for entry in part.imports() if entry[0] != "__future__"}
    found -= {(NUMPY, "")}
    lines = []
    for module in sorted({module for module, _ in found}, key=str.lower):
        assert module.split(".")[0] in sys.stdlib_module_names, f"{module} is not everywhere"
        names = sorted((name for where, name in found if where == module), key=_kind)
        if "" in names:  # one part may take the module, another a name of it
            lines.append(f"import {module}")
        if any(names):
            lines.append(f"from {module} import {', '.join(filter(None, names))}")
    lines.sort(key=lambda line: (line.startswith("from"), line))
    return [*lines, "", "np: Any = None  # numpy, once the files are checked"]


def _kind(name: str) -> tuple[bool, bool, str]:
    """Sorts constants before classes, and those before functions."""
    return not name.isupper(), not name[:1].isupper(), name


def _lines(node: ast.AST) -> range:
    assert isinstance(node, ast.stmt)
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return range(first, (node.end_lineno or node.lineno) + 1)


def _is_ours(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and str(node.module).startswith(PACKAGE)


def _is_exports(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _is_head(node: ast.stmt) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return text or isinstance(node, ast.Import | ast.ImportFrom) or _is_exports(node)


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
