"""Keys and values of tokens that came before, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse

__all__ = ["add_past", "past_of", "run_packed"]


def past_of(model: Any, batch: int, length: int) -> Iterator[tuple[str, str, tuple[int, ...], str]]:
    """Names of past and present, shape and dtype, of keys and values by layer, then of states."""
    for place, layer in enumerate(model.cache["layers"]):
        number = place if layer["layer"] is None else layer["layer"]
        for at in ({"layer": number, "kind": kind} for kind in ("key", "value")):
            with failing("manifest.json is damaged: manifest.cache and manifest.inputs differ"):
                past, present = (model.cache[way].format(**at) for way in ("past", "present"))
                dtype, (*_, row) = (model.inputs[past][key] for key in ("dtype", "shape"))
            yield past, present, (batch, layer["heads"], length, row), dtype
    if model.cache.get("states"):
        from lepton_compile.runtime.loader_states import states_of

        yield from states_of(model, batch)


def add_past(model: Any, given: dict[str, np.ndarray]) -> int:
    """Complete ``given`` by an empty past where none is given; how many tokens the past holds."""
    (rows, width), held = given["input_ids"].shape, 0
    for name, _, shape, dtype in past_of(model, rows, 0):
        if dtype == "bfloat16":
            from lepton_compile.runtime.loader_ort_cuda import BITS

            dtype = BITS
        with failing(f"there is no empty {name}"):
            held = max(held, given.setdefault(name, np.zeros(shape, dtype)).shape[2] - shape[2])
    most = model.cache["max_length"]
    refuse(held + width > most, f"{held + width} tokens, and the cache holds {most}")
    return held


def run_packed(run: Callable[..., Any], names: list[str], given: dict[str, np.ndarray]) -> Any:
    """Outputs for rows that may be padded on the left, of an engine that wants them to the left."""
    mask, tokens = given["attention_mask"], given["input_ids"].shape[1]
    padded = 1 < tokens < mask.shape[1] and not mask.all()
    refuse(padded, "behind a past, padded rows go on by one token at a time")
    if not (mask[:, 1:] > mask[:, :-1]).any():
        return run(names, given)
    order = np.argsort(mask == 0, axis=1, kind="stable")
    given["attention_mask"] = np.take_along_axis(mask, order, 1)
    if tokens < mask.shape[1]:
        return run(names, given)
    for name in given.keys() & {"input_ids", "position_ids", "position_offsets"}:
        given[name] = np.take_along_axis(given[name], np.broadcast_to(order, given[name].shape), -1)
    undo = np.argsort(order, axis=1)[:, -int(given.pop("logits_to_keep", 0)) :, None]
    found = zip(names, run(names, given), strict=True)
    return [np.take_along_axis(a, undo, 1) if name == "logits" else a for name, a in found]
