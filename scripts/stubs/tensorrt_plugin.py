"""Write names and arguments of ``tensorrt.plugin``, which is Python, from a wheel of the bindings.

    pip download --no-deps -d /tmp/wheels tensorrt-cu13-bindings==11.4.0.106
    python scripts/stubs/tensorrt_plugin.py /tmp/wheels/tensorrt_cu13_bindings-*.whl

The tests hold our ahead-of-time plugin, and the double it is tested on, to them.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2] / "tests" / "plugins" / "attention"
OUTPUT = TESTS / "tensorrt_plugin_api.json"
FOLDER = "tensorrt_bindings/plugin/"


def api(wheel: Path) -> dict[str, Any]:
    """Public classes with their methods, and public functions, with the names of arguments."""
    found: dict[str, Any] = {"version": wheel.name.split("-")[1], "classes": {}, "functions": {}}
    with zipfile.ZipFile(wheel) as file:
        names = [n for n in file.namelist() if n.startswith(FOLDER) and n.endswith(".py")]
        for name in sorted(names):
            for node in _public(ast.parse(file.read(name))):
                if isinstance(node, ast.ClassDef):
                    found["classes"][node.name] = _methods(node)
                else:
                    found["functions"][node.name] = [each.arg for each in node.args.args]
    _inherit(found["classes"])
    return found


def _public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """What is decorated with ``public_api``, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            marks = [each.func for each in node.decorator_list if isinstance(each, ast.Call)]
            if any(isinstance(mark, ast.Name) and mark.id == "public_api" for mark in marks):
                yield node


def _methods(node: ast.ClassDef) -> dict[str, Any]:
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    found: dict[str, Any] = {
        each.name: [a.arg for a in each.args.args][1:]
        for each in methods
        if each.name == "__init__" or not each.name.startswith("_")
    }
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    return found | {"bases": bases}


def _inherit(classes: dict[str, Any]) -> None:
    """A class without its own ``__init__`` has that of a base."""
    for methods in classes.values():
        for base in methods.pop("bases"):
            methods.setdefault("__init__", classes.get(base, {}).get("__init__", []))


def main(wheel: str) -> None:
    """Write the file."""
    text = json.dumps(api(Path(wheel)), indent=1, sort_keys=True)
    OUTPUT.write_text(text + "\n", encoding="utf-8")
    print(f"{OUTPUT}: {len(text)} characters")


if __name__ == "__main__":
    main(sys.argv[1])
