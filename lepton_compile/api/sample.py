"""Inputs of a graph for the per-pass check: a few rows of the sample text, a few
pictures, or what fits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.api.pictured import pictured_feed
from lepton_compile.api.pictures import PIXELS, pixels_for, sees
from lepton_compile.errors import PassError
from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.encoder_decoder import (
    PAIRS,
    SOUND,
    SOURCE_IDS,
    SOURCE_MASK,
    SPEECH,
    sound_shape,
)
from lepton_compile.export.image_text import IMAGE_TEXT
from lepton_compile.numerics.sample_sound import heard
from lepton_compile.numerics.sample_text import random_segments, segments, within

__all__ = ["check_feeds", "fewer_feeds"]

LENGTH = 48
SHORT = 40  # more than attention leaves in fp32 where it may round: a check is to see that, too
ROWS = 8
"""Rows of an encoder: a model that gives a few numbers for a text is judged by all of them."""
HEARD = 2
"""Windows of sound."""
IMPORTED = {"batch": 2, "other": 64}
"""Sizes of the open dimensions of an imported graph: the first of an input, and the others, which
are tokens (more than ``SHORT``, and hardly a table of positions has fewer rows) or pixels (which
nets halve several times)."""
FEWER = (32, 16, 8)
"""Sizes to try where a graph does not run on so many: its table of positions may be short."""
LARGEST = 1 << 28
"""Numbers of one synthetic input: half a gigabyte or more of them is no sample."""


def check_feeds(source: Source, exported: ExportedModel) -> dict[str, np.ndarray]:
    """Inputs by name; caches are left out, they start empty.

    Decoders get one row: engines with a shared cache take ragged rows in another layout. Encoders
    get several, every other one padded on the right. The inputs of an imported graph get what
    their names and shapes allow.

    Raises:
        PassError: an input of an imported graph cannot be made up.
        SourceError: the tokenizer gives tokens that the model does not know.
    """
    if source.kind == "onnx":
        return _imported(exported.model, min(IMPORTED["other"], exported.length))
    if sees(exported):
        return {PIXELS: pixels_for(source, exported, ROWS)}
    names = {value.name for value in exported.model.graph.inputs}
    if exported.task in PAIRS:
        return _pair(source, exported)
    if exported.task == IMAGE_TEXT:
        ids = _ids(source, min(LENGTH, exported.length), rows=1)
        return pictured_feed(source, exported, ids[0], picture=0)
    if exported.task == "text-generation":
        ids = _ids(source, min(LENGTH, exported.length), rows=1)
    else:
        ids = _ids(source, min(SHORT, exported.length), rows=ROWS)
    feeds = {"input_ids": ids}
    if "attention_mask" in names:
        feeds["attention_mask"] = _padded(ids.shape)
    if "token_type_ids" in names:
        feeds["token_type_ids"] = np.zeros_like(ids)
    if "position_ids" in names:
        feeds["position_ids"] = np.arange(ids.shape[1])[None].repeat(len(ids), axis=0)
    return feeds


def _pair(source: Source, exported: ExportedModel) -> dict[str, np.ndarray]:
    """Texts to read, every other one padded on the right, and to write: the beginnings of them; or
    sounds to hear, and texts."""
    if exported.task == SPEECH:
        ids = _ids(source, min(SHORT, exported.length), rows=HEARD)
        sounds = heard(sound_shape(source.config()), HEARD)
        return {SOUND: sounds, "input_ids": ids, "attention_mask": np.ones_like(ids)}
    ids = _ids(source, min(SHORT, exported.length, exported.source_length), rows=ROWS)
    mask = _padded(ids.shape)
    own = ids[:, : max(1, ids.shape[1] // 2)]
    written = {"input_ids": own, "attention_mask": np.ones_like(own)}
    return {SOURCE_IDS: ids, SOURCE_MASK: mask, **written}


def _padded(shape: tuple[int, ...]) -> np.ndarray:
    """A mask of texts, (rows, tokens): the last quarter of every other row is padding."""
    mask = np.ones(shape, np.int64)
    mask[1::2, shape[1] - shape[1] // 4 :] = 0
    return mask


def _ids(source: Source, length: int, rows: int) -> np.ndarray:
    tokenizer = source.tokenizer()
    vocabulary: Any = getattr(source.config().get_text_config(), "vocab_size", None)
    found: list[list[int]] = []
    if tokenizer is not None:
        parts = within(vocabulary, tokenizer, segments(tokenizer, length)[:rows])
        shortest = min(map(len, parts), default=0)
        found = [part[:shortest] for part in parts]
    if len(found) < rows:
        found = random_segments(vocabulary, [length] * rows)
    return np.array(found[:rows], dtype=np.int64)


def fewer_feeds(
    model: ir.Model, length: int, feeds: Mapping[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of an imported graph with fewer and fewer tokens than ``feeds``, ``length`` at most;
    none where its sizes are fixed."""
    shapes = _shapes(feeds)
    for size in FEWER:
        made = _imported(model, min(size, length))
        if _shapes(made) != shapes:
            shapes = _shapes(made)
            yield made


def _shapes(feeds: Mapping[str, np.ndarray]) -> list[tuple[int, ...]]:
    return [array.shape for array in feeds.values()]


def _imported(model: ir.Model, longest: int) -> dict[str, np.ndarray]:
    graph = model.graph
    wanted = [v for v in graph.inputs if v.name not in graph.initializers]
    return {str(value.name): _made_up(value, seed, longest) for seed, value in enumerate(wanted)}


def _made_up(value: ir.Value, seed: int, longest: int) -> np.ndarray:
    """Numbers for one input of an imported graph: ids from its table, masks of ones, else noise.

    Of an ``attention_mask`` every other row is padded on the right: a mask that gets lost shows.
    Each input has a ``seed`` of its own: a graph with two of them exchanged must not look the same.
    """
    name = str(value.name)
    if value.dtype is None or value.dtype == ir.DataType.UNDEFINED or value.shape is None:
        raise PassError(f"the input {name} of the ONNX file has no type and shape to be fed by")
    kind, shape = value.dtype.numpy(), _sizes(value.shape, longest)
    if math.prod(shape) > LARGEST:
        raise PassError(
            f"the input {name} of the ONNX file is too large for a check",
            found=" x ".join(map(str, shape)),
            available=[f"up to {LARGEST:,} numbers"],
            hint="leave the check out with --no-check",
        )
    random = np.random.default_rng(seed)
    if value.dtype.is_floating_point():
        return random.standard_normal(shape).astype(kind)
    if name == "attention_mask" and len(shape) == 2:
        return _padded(shape).astype(kind)
    if "mask" in name:
        return np.ones(shape, kind)
    if "token_type" in name or "segment" in name:
        return np.zeros(shape, kind)
    if "position" in name and len(shape) == 2:
        return np.broadcast_to(np.arange(shape[1]), shape).astype(kind)
    rows = _table_rows(value)
    if rows is None:
        raise PassError(f"nothing is known of what the input {name} of the ONNX file may hold")
    return random.integers(0, rows, shape).astype(kind)


def _sizes(shape: ir.Shape, longest: int) -> tuple[int, ...]:
    """Static dimensions as they are; of the open ones, the first is the batch."""
    return tuple(
        size if isinstance(size, int) else longest if at else IMPORTED["batch"]
        for at, size in enumerate(shape)
    )


def _table_rows(value: ir.Value) -> int | None:
    """Fewest rows of the tables that ids look up, through what only changes their type or shape."""
    rows: list[int] = []
    for node, index in value.uses():
        if node.op_type == "Gather" and index == 1:
            table = node.inputs[0]
            if table is not None and table.shape is not None and isinstance(table.shape[0], int):
                rows.append(table.shape[0])
        elif node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
            rows += [found for o in node.outputs if (found := _table_rows(o)) is not None]
    return min(rows, default=None)
