"""Names of caches and states: by layer where a model has states and its layers are known."""

from __future__ import annotations

import onnx_ir as ir

from lepton_compile.export.builder import Builder
from lepton_compile.export.kept import Layers, name_kept, presents_of
from lepton_compile.export.translate import State, Translator


def _value(*shape: int | str) -> ir.Value:
    return ir.Value(type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", *shape]))


def _translator(caches: int, kinds: list[str]) -> Translator:
    translator = Translator(Builder(), {}, dims={}, lifted={}, constants={})
    shape = (2, "past_sequence", 8)
    for _ in range(caches):
        past_key, past_value, key, value = (_value(*shape) for _ in range(4))
        translator.caches.append((past_key, past_value, key, value))
        translator.windows.append(None)
    translator.states += [State(kind, _value(4, 3), _value(4, 3)) for kind in kinds]
    return translator


def _names(translator: Translator, layers: Layers) -> list[str]:
    """What goes out, which has the numbers of what comes in."""
    name_kept(translator, layers)
    return [value.name or "" for value in presents_of(translator)]


def test_by_layer_beside_states() -> None:
    translator = _translator(1, ["conv", "recurrent", "conv"])
    caches, states = name_kept(translator, Layers([1], [0, 0, 2]))
    assert [cache.number for cache in caches] == [1]
    assert [(state.kind, state.number) for state in states] == [
        ("conv", 0),
        ("recurrent", 0),
        ("conv", 2),
    ]
    assert [value.name for value in translator.caches[0]] == [
        *("past_key_values.1.key", "past_key_values.1.value", "present.1.key", "present.1.value")
    ]
    assert [state.past.name for state in translator.states] == [
        *("past_conv.0", "past_recurrent.0", "past_conv.2")
    ]


def test_by_place_without_states() -> None:
    assert _names(_translator(2, []), Layers([1, 3], [])) == [
        *("present.0.key", "present.0.value", "present.1.key", "present.1.value")
    ]


def test_by_place_where_layers_are_not_known() -> None:
    names = ["present.0.key", "present.0.value", "present_conv.0", "present_conv.1"]
    assert _names(_translator(1, ["conv", "conv"]), Layers()) == names
    assert _names(_translator(1, ["conv", "conv"]), Layers([1], [0])) == names


def test_by_place_where_a_layer_has_two_of_a_kind() -> None:
    names = ["present.0.key", "present.0.value", "present_conv.0", "present_conv.1"]
    assert _names(_translator(1, ["conv", "conv"]), Layers([1], [0, 0])) == names
    two = ["present.0.key", "present.0.value", "present.1.key", "present.1.value"]
    assert _names(_translator(2, ["conv"]), Layers([1, 1], [0])) == [*two, "present_conv.0"]
