"""Requests that Triton runs before it calls a model ready, with the shapes that real ones have."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lepton_compile.artifact.manifest import UNKNOWN_LENGTH
from lepton_compile.errors import ArtifactError
from lepton_compile.serving.engine import BATCH, ServedEngine
from lepton_compile.serving.triton.protobuf import data_type, messages

__all__ = ["FOLDER", "Sample", "encoder_samples", "text_bytes"]

FOLDER = "warmup"
"""Where Triton looks for the files, in the model's folder."""

TYPICAL = 32
LARGEST = 1 << 25

# An id of every vocabulary, and a mask that attends: what Triton would make up itself, zeros or
# random numbers of the whole range, is no text.
_FILLED = {"input_ids": 1, "attention_mask": 1}


@dataclass(frozen=True)
class Sample:
    """One request.

    Attributes:
        name: shown in Triton's log.
        batch: how often it is repeated to make the batch; 0 where the model takes no batches.
        inputs: name -> dtype, dimensions without the batch.
        files: name -> content of a file, without one zeros are sent.
    """

    name: str
    batch: int
    inputs: Mapping[str, tuple[str, Sequence[int]]]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def file_name(self, value: str) -> str:
        """Of the file that holds an input, inside ``warmup``."""
        return f"{self.name}-{value}"

    def add_to(self, config: Any) -> None:
        """Append this request to ``model_warmup``."""
        entry = config.model_warmup.add(name=self.name, batch_size=max(self.batch, 1))
        for name, (dtype, dims) in self.inputs.items():
            value = entry.inputs[name]
            value.data_type = messages().DataType.Value(data_type(dtype))
            value.dims.extend(dims)
            if name in self.files:
                value.input_data_file = self.file_name(name)
            else:
                value.zero_data = True


def encoder_samples(engine: ServedEngine) -> Iterator[Sample]:
    """One text of usual length, one of the greatest; on a GPU the largest batch too.

    An imported file says nothing of its longest text: what its range allows fits no memory.
    """
    low, high = engine.limits("sequence")
    usual = max(low, min(TYPICAL, high))
    most = engine.limits("batch")[1]
    sizes = {(1, usual): None}
    if high < UNKNOWN_LENGTH:
        sizes[1, high] = None
        if engine.target != "ort-cpu":
            sizes[most, high] = None
    for batch, length in sizes:
        yield _encoder_sample(engine, batch, length)


def text_bytes(text: str) -> bytes:
    """One string in the form of a warm-up file: its length, four bytes, then UTF-8."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def _encoder_sample(engine: ServedEngine, batch: int, length: int) -> Sample:
    import numpy as np

    inputs, files = {}, {}
    sizes = _sizes(engine.inputs, 1 if engine.batched else batch, length)
    for value in engine.inputs:
        shape = value["shape"][1:] if engine.batched else value["shape"]
        dims = [int(size) if isinstance(size, int) else sizes[size] for size in shape]
        inputs[value["name"]] = (value["dtype"], dims)
        if value["name"] in _FILLED:
            _refuse_unlikely(value, dims)
            filled = np.full(dims, _FILLED[value["name"]], value["dtype"])
            files[value["name"]] = filled.tobytes()
    return Sample(f"{batch}x{length}", batch if engine.batched else 0, inputs, files)


def _sizes(inputs: Sequence[Mapping[str, Any]], rows: int, length: int) -> dict[str, int]:
    """Sizes of the dimensions that a caller chooses, by name.

    Of an imported decoder one token is past and the others are new: its mask is as long as both
    together, and Triton may not take dimensions of no size.
    """
    ids: Sequence[Any] = next((v["shape"] for v in inputs if v["name"] == "input_ids"), ())
    past = [size for v in inputs if v["name"].startswith("past") for size in v["shape"]]
    held = min(1, length - 1) if past else 0
    new = ids[1] if len(ids) == 2 and isinstance(ids[1], int) else length - held
    known = {BATCH: rows, **dict(zip(ids, (rows, new), strict=False))}
    known |= {size: held for size in past if size not in known}
    every = [size for value in inputs for size in value["shape"]]
    return {size: known.get(size, new + held) for size in every if isinstance(size, str)}


def _refuse_unlikely(value: Mapping[str, Any], dims: Sequence[int]) -> None:
    """A type that Triton does not have, or a size that no request has."""
    data_type(value["dtype"])
    if math.prod(dims) > LARGEST:
        raise ArtifactError(
            "an input is too large for a request to warm up with",
            where=value["name"],
            found="x".join(map(str, dims)),
            available=[f"up to {LARGEST} numbers"],
        )
