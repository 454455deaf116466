"""Imports follow the flow: a layer knows those below it, never those above.

    cli
    api | serving                                         report: what api writes, imports errors
    export | pipeline | engines | numerics | tactics
    recipe | artifact                                     lepton_passes
    errors | progress | collection | scratch | arguments  lepton_plugins*.spec | .workroom

    runtime: apart. It imports nothing of ours, and is what the upper layers may hand out.

An import inside a function counts as much as one at the top of the file.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lepton_plugins.spec import PLUGINS as NAMES_OF_PLUGINS
from tests.runtime.manifests import all_loaders
from tests.sources import SOURCE_ROOTS, Module, parse, sources

ERRORS, RECIPE, ARTIFACT = (
    "lepton_compile.errors",
    "lepton_compile.recipe",
    "lepton_compile.artifact",
)
RUNTIME, SPEC, PASSES = "lepton_compile.runtime", "lepton_plugins.spec", "lepton_passes"
WORKROOM = "lepton_plugins.workroom"
PLUGIN_SPECS = tuple(f"lepton_plugins.{name}.spec" for name in NAMES_OF_PLUGINS)
EXPORT, PIPELINE = "lepton_compile.export", "lepton_compile.pipeline"
ENGINES, NUMERICS = "lepton_compile.engines", "lepton_compile.numerics"
TACTICS, API, CLI = "lepton_compile.tactics", "lepton_compile.api", "lepton_compile.cli"
PLUGINS, RECIPES = "lepton_plugins", "lepton_recipes"
PROGRESS, REPORT = "lepton_compile.progress", "lepton_compile.report"
COLLECTION, SCRATCH = "lepton_compile.collection", "lepton_compile.scratch"
ARGUMENTS = "lepton_compile.arguments"
SERVING = "lepton_compile.serving"

VERSION = "lepton_compile.__version__"

BASE = (
    VERSION,
    ERRORS,
    PROGRESS,
    COLLECTION,
    SCRATCH,
    ARGUMENTS,
    SPEC,
    *PLUGIN_SPECS,
    WORKROOM,
    PASSES,
    PLUGINS,
    RECIPES,
    RECIPE,
    ARTIFACT,
    RUNTIME,
)

# Unit -> the units it may import besides itself. A unit is named by the longest prefix.
ALLOWED: dict[str, tuple[str, ...]] = {
    SPEC: (),
    **dict.fromkeys(PLUGIN_SPECS, (SPEC,)),
    WORKROOM: (),
    PLUGINS: (SPEC, *PLUGIN_SPECS, WORKROOM),
    # Of a plugin, its spec and nothing else.
    PASSES: (SPEC, *PLUGIN_SPECS),
    RECIPES: (),
    ERRORS: (),
    VERSION: (),
    PROGRESS: (),
    COLLECTION: (),
    SCRATCH: (),
    ARGUMENTS: (ERRORS,),
    REPORT: (ERRORS,),
    RUNTIME: (),
    RECIPE: (ERRORS, ARGUMENTS, RECIPES),
    ARTIFACT: (ERRORS, ARGUMENTS, RUNTIME, WORKROOM),
    EXPORT: BASE,
    PIPELINE: BASE,
    # Later stages of the same row may look at what an earlier stage hands over.
    ENGINES: (*BASE, EXPORT),
    TACTICS: BASE,
    NUMERICS: (*BASE, EXPORT, ENGINES),
    API: (*BASE, EXPORT, PIPELINE, ENGINES, NUMERICS, TACTICS, REPORT),
    # What other servers load is made of a finished artifact alone.
    SERVING: (ERRORS, ARGUMENTS, ARTIFACT),
    CLI: (*BASE, EXPORT, PIPELINE, ENGINES, NUMERICS, TACTICS, REPORT, API, SERVING),
    # The package itself gives the public names of every layer, on first use.
    "lepton_compile": (*BASE, EXPORT, PIPELINE, ENGINES, NUMERICS, TACTICS, API, CLI),
}

LOADER_AT_THE_TOP = {"numpy"}
LOADER_INSIDE_FUNCTIONS = {
    *("numpy", "onnxruntime", "tokenizers", "jinja2", "PIL"),
    *("tensorrt", "tensorrt_rtx", "cuda"),
}


def unit_of(name: str) -> str | None:
    """The unit a dotted name belongs to, or None for what is not ours."""
    parts = name.split(".")
    prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in ALLOWED), None)


def imports(module: Module, nodes: Iterator[ast.AST] | None = None) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything ``module`` imports."""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    for node in nodes or ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(module: Module) -> list[str]:
    """Each import that the table does not allow, readable."""
    unit = unit_of(module.name)
    assert unit is not None, f"{module.name} belongs to no layer: add it to ALLOWED"
    found = []
    for line, name in imports(module):
        target = unit_of(name)
        if target not in (None, unit, *ALLOWED[unit]):
            found.append(f"{module.path}:{line}: {unit} may not import {target} ({name})")
    return found


def test_no_layer_imports_one_above() -> None:
    found = [violation for module in sources() for violation in violations(module)]
    assert not found, "\n".join(found)


def test_every_source_root_has_modules() -> None:
    assert {module.name.split(".")[0] for module in sources()} >= {"lepton_compile", PASSES}
    assert set(SOURCE_ROOTS) <= {unit.split(".")[0] for unit in ALLOWED}


def test_the_runtime_needs_nothing_but_numpy_to_be_imported() -> None:
    runtime = [module for module in sources() if unit_of(module.name) == RUNTIME]
    assert {RUNTIME, f"{RUNTIME}.loader"} <= {module.name for module in runtime}
    for module in runtime:
        top = {name.split(".")[0] for _, name in imports(module, iter(module.tree.body))}
        everywhere = {name.split(".")[0] for _, name in imports(module)}
        ours_or_stdlib = {*sys.stdlib_module_names, "lepton_compile"}
        assert top - ours_or_stdlib <= LOADER_AT_THE_TOP, module.path
        assert everywhere - ours_or_stdlib <= LOADER_INSIDE_FUNCTIONS, module.path


def ours_in(source: str) -> list[str]:
    """What an emitted loader imports of this project; one that names none of it is not parsed."""
    if not any(package in source for package in SOURCE_ROOTS):
        return []
    module = parse("loader", Path("loader.py"), source)
    return [name for _, name in imports(module) if unit_of(name)]


def test_the_emitted_loader_stands_alone() -> None:
    for source in all_loaders():
        ours = ours_in(source)
        assert not ours, f"loader.py goes into artifacts, yet imports {ours}"
    wrong = all_loaders()[0] + "\n\ndef f() -> None:\n    from lepton_compile.api import build\n"
    assert ours_in(wrong) == ["lepton_compile.api.build"]


def test_plugin_specs_need_only_the_standard_library() -> None:
    specs = [module for module in sources() if module.path.name == "spec.py"]
    assert sorted(module.name for module in specs) == sorted([SPEC, *PLUGIN_SPECS])
    for module in specs:
        names = {name.split(".")[0] for _, name in imports(module)}
        assert names <= {*sys.stdlib_module_names, PLUGINS}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lepton_compile.errors", "import lepton_compile.recipe"),
        ("lepton_compile.export.trace", "from ..api import build"),
        ("lepton_compile.recipe.schema", "def f() -> None:\n    from lepton_compile import export"),
        ("lepton_compile.runtime.loader", "from lepton_compile.errors import LeptonError"),
        ("lepton_passes.catalog", "import lepton_compile.errors"),
        ("lepton_passes.catalog", "from lepton_plugins import attention"),
        ("lepton_plugins.attention.reference", "from lepton_passes.tensors import cast"),
    ],
)
def test_the_walk_sees_a_forbidden_import(name: str, text: str) -> None:
    assert len(violations(parse(name, Path("made_up.py"), text))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lepton_compile.cli.build", "from lepton_compile.api import build"),
        ("lepton_compile.export.trace", "from .bind import bind\nimport torch"),
        ("lepton_passes.fusion.gelu", "from lepton_plugins.spec import PluginSpec"),
    ],
)
def test_the_walk_lets_an_allowed_import_pass(name: str, text: str) -> None:
    assert violations(parse(name, Path("made_up.py"), text)) == []
