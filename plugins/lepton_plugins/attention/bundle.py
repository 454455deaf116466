"""Modules of this package as one file that needs none of it: what an artifact carries.

Docstrings become headings, the imports from elsewhere are gathered at the top, those among the
modules are left out: in one file every name is there already. Nothing else is changed. The
compiler makes its loaders in the same way; what does that and this may not import each other.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lepton_plugins.spec import PluginError

__all__ = ["bundle"]

_PACKAGE = "lepton_plugins"


def bundle(module: str, docstring: str, exports: Sequence[str]) -> str:
    """The source of ``module`` and of all that it needs of this package, as one module.

    Raises:
        PluginError: two of them give one name to different things.
    """
    parts = list(_in_order(module, {}).values())
    twice = [
        name for name, n in Counter(n for part in parts for n in part.names()).items() if n > 1
    ]
    if twice:
        raise PluginError("two modules define one name", where=module, found=", ".join(twice))
    imports = sorted({line for part in parts for line in part.imports()})
    plain = [line for line in imports if line.startswith("import")]
    named = [line for line in imports if not line.startswith("import")]
    exported = ", ".join(f'"{name}"' for name in exports)
    head = f'# SPDX-License-Identifier: Apache-2.0\n"""{docstring}"""\n\n'
    head += "from __future__ import annotations\n\n" + "\n".join([*plain, *named])
    return f"{head}\n\n__all__ = [{exported}]\n\n\n" + "\n\n\n".join(p.text() for p in parts) + "\n"


def _in_order(module: str, known: dict[str, _Part]) -> dict[str, _Part]:
    """``known``, and ``module`` behind what it needs."""
    part = _Part(module)
    for needed in part.needed():
        if needed not in known:
            _in_order(needed, known)
    known[module] = part
    return known


class _Part:
    """One module, as source and as tree."""

    def __init__(self, name: str) -> None:
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        self.name, self.source = name, Path(spec.origin).read_text("utf-8")
        self.tree = ast.parse(self.source)

    def names(self) -> list[str]:
        """What it defines."""
        found = []
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.append(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and not _is_exports(node):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found += [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        return found

    def needed(self) -> list[str]:
        """Modules of the package that it takes names from."""
        nodes = (node for node in ast.walk(self.tree) if _is_ours(node))
        return [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]

    def imports(self) -> list[str]:
        """Its imports from elsewhere, a line for each name."""
        found = []
        for node in self.tree.body:
            if isinstance(node, ast.Import):
                found += [f"import {ast.unparse(alias)}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
                lines = [f"from {node.module} import {ast.unparse(a)}" for a in node.names]
                found += [] if _is_ours(node) else lines
        return found

    def text(self) -> str:
        """A heading, and what is left of the source."""
        dropped = {line for node in self.tree.body if _is_head(node) for line in _lines(node)}
        dropped |= {line for node in ast.walk(self.tree) if _is_ours(node) for line in _lines(node)}
        lines = enumerate(self.source.splitlines(), 1)
        kept = "\n".join(line for number, line in lines if number not in dropped)
        words = (ast.get_docstring(self.tree) or "").splitlines()
        heading = "\n".join(f"# {line}".rstrip() for line in words)
        return f"# ---- {self.name} ".ljust(100, "-") + f"\n{heading}\n\n{kept.strip()}"


def _is_ours(node: ast.AST) -> bool:
    return isinstance(node, ast.ImportFrom) and str(node.module).startswith(_PACKAGE)


def _is_exports(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"


def _is_head(node: ast.stmt) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    first = text and node.lineno == 1
    return first or isinstance(node, ast.Import | ast.ImportFrom) or _is_exports(node)


def _lines(node: ast.AST) -> range:
    assert isinstance(node, ast.stmt)
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
