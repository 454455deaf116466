"""A few rows of the sample text as inputs of a graph, for the per-pass check."""

from __future__ import annotations

import numpy as np

from lepton_compile.export import ExportedModel, Source
from lepton_compile.numerics.sample_text import random_segments, segments

__all__ = ["check_feeds"]

LENGTH = 48


def check_feeds(source: Source, exported: ExportedModel) -> dict[str, np.ndarray]:
    """Inputs by name, int64; encoders get a second row that is padded on the right.

    Decoders get one row: engines with a shared cache take ragged rows in another layout.
    """
    names = {value.name for value in exported.model.graph.inputs}
    longest = min(LENGTH, exported.length)
    ids = _ids(source, longest, rows=1 if exported.task == "text-generation" else 2)
    mask = np.ones_like(ids)
    if len(ids) > 1:
        mask[1, -(ids.shape[1] // 4) :] = 0
    feeds = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in names:
        feeds["token_type_ids"] = np.zeros_like(ids)
    return feeds


def _ids(source: Source, length: int, rows: int) -> np.ndarray:
    tokenizer = source.tokenizer()
    found: list[list[int]] = []
    if tokenizer is not None:
        parts = segments(tokenizer, length)[:rows]
        shortest = min(map(len, parts), default=0)
        found = [part[:shortest] for part in parts]
    if len(found) < rows:
        found = random_segments(int(source.config().get_text_config().vocab_size), [length] * rows)
    return np.array(found[:rows], dtype=np.int64)
