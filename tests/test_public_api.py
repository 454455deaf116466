"""``__all__`` of each module is exactly its public functions and classes, and each is documented.

A constant may stay out of ``__all__``. A package's ``__init__`` may list names it imports or, for
names that are imported on first use, names that its ``__getattr__`` gives.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from tests.sources import Module, parse, sources

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def exported(module: Module) -> set[str] | None:
    """The names in ``__all__``, or None where there is none."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def definitions(module: Module) -> dict[str, Definition]:
    """Public functions and classes defined at the top of ``module``."""
    nodes = (node for node in module.tree.body if isinstance(node, Definition))
    return {node.name: node for node in nodes if not node.name.startswith("_")}


def other_names(module: Module) -> set[str]:
    """What else ``__all__`` may name: constants, and what the module imports by name."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            inner = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
            names |= {target.id for target in inner if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


def leaks(module: Module) -> list[str]:
    """What is wrong with the surface of ``module``, with the two ways to mend each."""
    names, public = exported(module), definitions(module)
    if names is None:
        return [f"{module.name}: public names but no __all__: {sorted(public)}"] if public else []
    lazy = any(isinstance(n, ast.FunctionDef) and n.name == "__getattr__" for n in module.tree.body)
    known = public.keys() | other_names(module)
    found = [
        f"{module.name}.{name} is public: add it to __all__ or call it _{name}"
        for name in sorted(public.keys() - names)
    ]
    if not lazy:
        found += [
            f"{module.name}.__all__ names {name!r}, which is not there: define it or drop it"
            for name in sorted(names - known)
        ]
    found += [
        f"{module.name}.{name} is in __all__ and has no docstring"
        for name in sorted(names & public.keys())
        if not ast.get_docstring(public[name])
    ]
    return found


def test_surfaces_are_what_they_say() -> None:
    found = [leak for module in sources() for leak in leaks(module)]
    assert not found, "\n".join(found)


def test_the_package_gives_every_name_it_promises() -> None:
    package = importlib.import_module("lepton_compile")
    assert {"build", "load"} <= set(package.__all__)
    missing = [name for name in package.__all__ if not hasattr(package, name)]
    assert not missing


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f():\n    'Doc.'", "no __all__"),
        ("__all__ = ['f']\ndef f():\n    'Doc.'\ndef g():\n    'Doc.'", "call it _g"),
        ("__all__ = ['f', 'g']\ndef f():\n    'Doc.'", "not there"),
        ("__all__ = ['f']\ndef f():\n    pass", "no docstring"),
    ],
)
def test_a_leak_is_seen(text: str, said: str) -> None:
    (leak,) = leaks(parse("made.up", Path("up.py"), text))
    assert said in leak


def test_a_clean_surface_passes() -> None:
    text = "__all__ = ['LIMIT', 'f']\nLIMIT = 3\n_x = 1\ndef f():\n    'Doc.'\ndef _g():\n    pass"
    assert leaks(parse("made.up", Path("up.py"), text)) == []
