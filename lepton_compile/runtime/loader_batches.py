"""Texts through an encoder, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import refuse

__all__ = ["outputs_of", "run_encoded"]

TOGETHER = 32  # Texts that are run at a time.


def outputs_of(model: Any, texts: Sequence[Any], name: str) -> list[np.ndarray]:
    """Output ``name`` of each text or pair of texts, without padding."""
    refuse(isinstance(texts, str), "give a list of texts")
    refuse(not len(texts), "no texts are given")
    found = [*model.outputs]
    refuse(name not in found, f"this model does {model.task}: it gives {found}, and no {name}")
    encoded = model.text.tokenizer.encode_batch(list(texts))
    return [found[name] for found in run_encoded(model, encoded, [name])]


def run_encoded(
    model: Any, encoded: Sequence[Any], names: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """The outputs of each encoding, without padding; those of like length run together."""
    order = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))
    together = min(TOGETHER, model.manifest["ranges"]["batch"][1])
    along = {name for name, spec in model.outputs.items() if "sequence" in spec["shape"]}
    found: dict[int, dict[str, np.ndarray]] = {}
    for at in range(0, len(order), together):
        part = order[at : at + together]
        results = model.run(_feeds(model, [encoded[number] for number in part]), names)
        for row, number in enumerate(part):
            size = len(encoded[number])
            found[number] = {
                name: array[row, :size] if name in along else array[row]
                for name, array in results.items()
            }
    return [found[number] for number in range(len(encoded))]


def _feeds(model: Any, encoded: Sequence[Any]) -> dict[str, np.ndarray]:
    """The encodings as arrays, padded on the right."""
    shape = len(encoded), max(map(len, encoded))
    pads = {"input_ids": model.text.pad, "attention_mask": 0, "token_type_ids": 0}
    feeds = {name: np.full(shape, pad) for name, pad in pads.items() if name in model.inputs}
    for number, text in enumerate(encoded):
        columns = {"input_ids": text.ids, "attention_mask": 1, "token_type_ids": text.type_ids}
        for name, array in feeds.items():
            array[number, : len(text)] = columns[name]
    return feeds
