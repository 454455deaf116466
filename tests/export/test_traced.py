"""A model that this process has traced is not traced again, and nobody sees a difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from torch import nn

import lepton_compile as lc
from lepton_compile.api import capturing
from lepton_compile.export import ExportedModel, resolve
from lepton_compile.export import export as stage
from lepton_compile.export import traced as module
from lepton_compile.export.export import export
from lepton_compile.export.traced import MOST, Traced
from tests.small import llama, saved

TASK = "text-generation"


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each model that is traced."""
    found: list[str] = []
    plain = stage.build_graph

    def noted(make: Callable[[Any], Any], positions: int) -> Any:
        found.append(type(make("captured").network).__name__)
        return plain(make, positions)

    monkeypatch.setattr(stage, "build_graph", noted)
    return found


def _captured(folder: Path, known: Traced | None, **options: Any) -> ExportedModel:
    source = resolve(str(folder), base=folder.parent)
    return export(source, TASK, traced=known, weights=False, **options)


def _text(exported: ExportedModel) -> bytes:
    return bytes(ir.serde.serialize_model(exported.model).SerializeToString(deterministic=True))


def _without_values(exported: ExportedModel) -> bytes:
    for value in exported.model.graph.initializers.values():
        value.const_value = None
    return _text(exported)


def test_the_second_time_it_is_not_traced(tmp_path: Path, traces: list[str]) -> None:
    first, second = (saved("LlamaForCausalLM", llama(), tmp_path / name) for name in "ab")
    known = Traced()
    found = [_captured(folder, known) for folder in (first, second)]
    assert len(traces) == 1
    anew = _captured(first, None)
    assert len(traces) == 2
    for each in found:
        assert (each.how, each.kinds, each.caches) == (anew.how, anew.kinds, anew.caches)
        assert (each.notes, each.parameters) == (anew.notes, anew.parameters)
    assert len({_without_values(each) for each in (*found, anew)}) == 1


def test_what_is_done_to_a_graph_stays_with_it(tmp_path: Path, traces: list[str]) -> None:
    folder, known = saved("LlamaForCausalLM", llama(), tmp_path / "model"), Traced()
    source = resolve(str(folder), base=tmp_path)
    for _ in range(3):  # what was traced itself, and a copy of it
        exported = export(source, TASK, traced=known)
        weights = exported.model.graph.initializers
        assert len(exported.caches) == 2
        assert exported.notes == []
        assert all(value.const_value is not None for value in weights.values())
        assert [node.op_type for node in exported.model.graph][-1] == "MatMul"
        for function in exported.model.functions.values():
            assert function.name
            function.name = ""
        exported.model.graph.remove(exported.model.graph[-1])
        weights.clear()
        exported.caches.clear()
        exported.notes.append("of this build")
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"rms_norm_eps": 1e-3}, {}),
        ({"num_hidden_layers": 1}, {}),
        ({"attention_bias": True}, {}),
        ({}, {"length": 32}),
        ({}, {"positions": True}),
    ],
    ids=str,
)
def test_another_model_is(
    changes: dict[str, Any], options: dict[str, Any], tmp_path: Path, traces: list[str]
) -> None:
    known = Traced()
    _captured(saved("LlamaForCausalLM", llama(), tmp_path / "first"), known)
    other = saved("LlamaForCausalLM", llama(**changes), tmp_path / "other")
    found = _captured(other, known, **options)
    assert len(traces) == 2
    assert _text(found) == _text(_captured(other, None, **options))


class _Named:
    """The configuration of a model."""

    def to_dict(self) -> dict[str, Any]:
        return {"size": 3}


def _model(home: str) -> Any:
    model = type("Model", (nn.Linear,), {"__module__": home})(2, 3)
    model.config = _Named()
    return model


def test_code_that_came_with_a_model_is(tmp_path: Path) -> None:
    graph = _graph(tmp_path)
    for home, times in (("transformers_modules.one", 2), ("transformers.models.one", 1)):
        known, made, model = Traced(), list[int](), _model(home)
        for _ in range(2):
            known.graph(model, (), lambda made=made: made.append(1) or graph)  # type: ignore[misc]
        assert len(made) == times


def test_few_are_kept_and_no_large_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, model, made = _graph(tmp_path), _model("transformers.models.one"), list[int]()
    known = Traced()

    def ask(number: int) -> None:
        known.graph(model, number, lambda: made.append(number) or graph)  # type: ignore[func-returns-value]

    for number in range(MOST):
        ask(number)
    ask(0)
    ask(MOST)  # in place of the one that was asked for longest ago
    assert made == [*range(MOST + 1)]
    ask(0)
    assert made == [*range(MOST + 1)]
    ask(1)
    assert made == [*range(MOST + 1), 1]
    monkeypatch.setattr(module, "LARGEST", -1)
    for _ in range(2):
        ask(-1)
    assert made[-2:] == [-1, -1]


def _graph(folder: Path) -> Any:
    """What a trace gives."""
    found: list[Any] = []

    class Seen(Traced):
        def graph(self, network: nn.Module, asked: object, trace: Callable[[], Any]) -> Any:
            found.append(trace())
            return found[0]

    _captured(saved("LlamaForCausalLM", llama(), folder / "model"), Seen())
    return found[0]


def test_builds_of_one_model_trace_it_once(
    tmp_path: Path, traces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan, and builds with other bits; an engine is the same whether its model was traced."""
    model = str(saved("LlamaForCausalLM", llama(), tmp_path / "model"))

    def built(name: str, quantize: str) -> dict[str, str]:
        output, how = tmp_path / name, {"task": TASK, "quantize": quantize}
        artifact = lc.build(model=model, output=output, check=False, verify=False, **how)
        files = artifact.manifest.files.items()
        return {path: entry.sha256 for path, entry in files if path.startswith("engines/")}

    def forget() -> None:
        monkeypatch.setattr(capturing, "TRACED", Traced())

    forget()
    lc.plan(model=model, task=TASK)
    first = built("first", "int8"), built("second", "int4")
    assert len(traces) == 1
    for name, quantize, found in (("third", "int8", first[0]), ("fourth", "int4", first[1])):
        forget()
        assert built(name, quantize) == found
    assert len(traces) == 3
