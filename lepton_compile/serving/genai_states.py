"""What onnxruntime-genai has to know of a decoder's states: it binds them by patterns of names.

It keeps states in one of two ways. Where there are convolutions alone it goes by the kind of each
layer, which has either a cache or a state. Else it looks for numbers among the inputs' names, and
takes a convolution and a recurrent state of each. Both make all states of a kind in the shape of
the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lepton_compile.errors import ArtifactError

__all__ = ["HINT", "cache_numbers", "layer_types", "state_names"]

HINT = "serve this model with its own loader, or behind Triton: lepton-compile export triton"


def cache_numbers(cache: Mapping[str, Any]) -> list[int]:
    """The numbers in the names of keys and values, in order."""
    numbers = (layer.get("layer") for layer in cache["layers"])
    return [place if number is None else number for place, number in enumerate(numbers)]


def state_names(cache: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Patterns with ``%d`` for inputs and for outputs.

    Raises:
        ArtifactError: the server cannot hold these states.
    """
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for state in cache.get("states") or ():
        shapes.setdefault(_kind(state), set()).add(tuple(state["shape"]))
    mixed = {kind: sorted(found) for kind, found in shapes.items() if len(found) > 1}
    _refuse(mixed, "onnxruntime-genai takes one shape for all states of a kind", mixed)
    conv, recurrent = _numbers(cache, "conv"), _numbers(cache, "recurrent")
    told = f"convolutions {conv}, recurrent states {recurrent}"
    uneven = recurrent and {*conv} != {*recurrent}
    _refuse(uneven, "onnxruntime-genai takes recurrent states with a convolution each", told)
    past = {f"past_{kind}_names": f"past_{kind}.%d" for kind in shapes}
    present = {f"present_{kind}_names": f"present_{kind}.%d" for kind in shapes}
    return past, present


def layer_types(cache: Mapping[str, Any]) -> list[str]:
    """The kind of each layer, where the server goes by it; else none.

    Raises:
        ArtifactError: a layer has neither cache nor state, or it is not known which has what.
    """
    conv, caches = _numbers(cache, "conv"), cache_numbers(cache)
    if not conv or _numbers(cache, "recurrent"):
        return []
    found = sorted([*conv, *caches])
    wrong = found != [*range(len(found))]
    told = f"convolutions {conv}, caches {caches}"
    _refuse(wrong, "onnxruntime-genai takes either a convolution or a cache in each layer", told)
    return ["conv" if number in conv else "full_attention" for number in found]


def _numbers(cache: Mapping[str, Any], kind: str) -> list[int]:
    states: Sequence[Mapping[str, Any]] = cache.get("states") or ()
    return [int(state["past"].split(".")[-1]) for state in states if _kind(state) == kind]


def _kind(state: Mapping[str, Any]) -> str:
    """Such as "conv" of ``past_conv.3``."""
    return str(state["past"]).removeprefix("past_").split(".", maxsplit=1)[0]


def _refuse(wrong: object, message: str, found: object) -> None:
    if wrong:
        raise ArtifactError(message, found=str(found), hint=HINT)
