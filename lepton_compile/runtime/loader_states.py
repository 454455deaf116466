"""States of a decoder: what its layers go on from in place of keys and values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse

__all__ = ["check_unpadded", "states_of"]


def states_of(model: Any, batch: int) -> Iterator[tuple[str, str, tuple[int, ...], str]]:
    """Names of past and present, shape and dtype, of each state."""
    for state in model.cache["states"]:
        with failing("manifest.json is damaged: manifest.cache and manifest.inputs differ"):
            dtype = model.inputs[state["past"]]["dtype"]
        yield state["past"], state["present"], (batch, *state["shape"]), dtype


def check_unpadded(model: Any, names: Collection[str], given: Mapping[str, np.ndarray]) -> None:
    """Refuse to give states after padding, which would be in them."""
    asked = [present for _, present, *_ in states_of(model, 1) if present in names]
    refuse(
        asked and not given["attention_mask"].all(),
        f"padded rows leave no states to go on from, such as {asked[:1]}: ask for other outputs, "
        "or run rows of one length together",
    )
