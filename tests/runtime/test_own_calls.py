"""A model that this package opens has the calls of its task, and says so of those of others."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from lepton_compile.runtime import LoaderError, Model, load
from lepton_compile.runtime.emit import loader_source
from lepton_compile.runtime.own_calls import without_others
from tests.runtime import tiny
from tests.runtime.manifests import all_manifests


def emitted(source: str) -> dict[str, list[str]]:
    """What ``Model`` in an emitted file has, and takes, but for what is private."""
    (model,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "Model")
    assert isinstance(model, ast.ClassDef)
    return {
        node.name: [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]
        for node in model.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def test_each_has_the_names_of_the_file_that_its_artifact_carries() -> None:
    kinds = {}
    for given in all_manifests():
        own = without_others(Model, given)
        there = {name for name in dir(own) if not name.startswith("_") and hasattr(own, name)}
        in_file = emitted(loader_source(given))
        assert there == in_file.keys(), given["task"]
        for name, taken in in_file.items():
            if callable(found := inspect.getattr_static(own, name)):
                assert inspect.signature(found).parameters.keys() >= {*taken}, (given["task"], name)
        kinds[given["task"]] = there
    assert kinds["text-generation"] - kinds["feature-extraction"] >= {"generate", "logits"}
    assert kinds["feature-extraction"] - kinds["text-generation"] == {
        *("embed", "outputs_of", "run_encoded"),
    }


def test_calls_of_other_tasks_name_the_task_and_its_own(model: Model, tmp_path: Path) -> None:
    for call in ("transcribe", "vectors", "words", "classify", "entities", "answer", "fill"):
        said = rf"^loader.py has no {call}\(\) for text-generation: "
        with pytest.raises(LoaderError, match=said + r"call generate\(\) or logits\(\) or run\(\)"):
            getattr(model, call)(["w5"])
    made = tiny.encoder(tmp_path / "labels", "text-classification")
    with load(made.path, threads=1) as labels:
        assert isinstance(labels, Model)
        for call in ("generate", "embed", "entities"):
            said = rf"{call}\(\) for text-classification: call classify\(\) or logits\(\)"
            with pytest.raises(LoaderError, match=said):
                getattr(labels, call)(["w5"])
        with pytest.raises(AttributeError, match="'Model' object has no attribute 'pixels'"):
            labels.pixels([])
        assert labels.classify(["w5"])
