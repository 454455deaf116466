"""The configuration of a decoder that its own loader runs, behind Triton's Python backend."""

from __future__ import annotations

import struct
from typing import Any

from lepton_compile.serving.engine import ServedEngine
from lepton_compile.serving.triton.protobuf import data_type, messages
from lepton_compile.serving.triton.warmup import Sample, text_bytes

__all__ = ["KINDS", "decoder_config", "decoder_samples"]

KINDS = {"ort-cpu": "KIND_CPU", "ort-cuda": "KIND_GPU", "trt": "KIND_GPU", "trt-rtx": "KIND_GPU"}
"""Target -> kind of instance. The loader brings its own runtime, so that each target is served."""

# The names of Triton's own generation endpoint, and of the settings of Model.generate.
_OPTIONS = {
    "max_tokens": "int32",
    "stream": "bool",
    "chat": "bool",
    "seed": "int64",
    "temperature": "float32",
    "top_k": "int32",
    "top_p": "float32",
    "min_p": "float32",
    "repetition_penalty": "float32",
    "stop": "str",
}
_MANY = frozenset({"stop", "input_ids", "output_ids"})
_WARMUP_TOKENS = 4


def decoder_config(engine: ServedEngine, name: str, instances: int) -> Any:
    """A ``ModelConfig``: text in and text out, or ids where the artifact has no tokenizer.

    A response goes out for each piece of text when the request says ``stream``, else one for all.
    """
    pb = messages()
    config = pb.ModelConfig(name=name, backend="python", max_batch_size=0)
    config.version_policy.latest.num_versions = 1
    config.model_transaction_policy.decoupled = True
    kind = getattr(pb.ModelInstanceGroup, KINDS[engine.target])
    config.instance_group.add(kind=kind, count=instances)
    asked, answered = _text(engine)
    for value, dtype in (asked, *_OPTIONS.items()):
        entry = config.input.add(name=value, data_type=data_type(dtype))
        entry.dims.append(-1 if value in _MANY else 1)
        entry.optional = value != asked[0]
    entry = config.output.add(name=answered[0], data_type=data_type(answered[1]))
    entry.dims.append(-1 if answered[0] in _MANY else 1)
    config.parameters["target"].string_value = engine.target
    config.parameters["threads"].string_value = "0"  # each instance has as many as there are cores
    for sample in decoder_samples(engine):
        sample.add_to(config)
    return config


def decoder_samples(engine: ServedEngine) -> list[Sample]:
    """One request for a few tokens: it opens the engine's buffers before the first caller comes."""
    (name, dtype), _ = _text(engine)
    content = text_bytes("a") if dtype == "str" else struct.pack("<q", 1)
    inputs = {name: (dtype, [1]), "max_tokens": ("int32", [1])}
    files = {name: content, "max_tokens": struct.pack("<i", _WARMUP_TOKENS)}
    return [Sample("first", 0, inputs, files)]


def _text(engine: ServedEngine) -> tuple[tuple[str, str], tuple[str, str]]:
    """Name and dtype of what is asked and of what is answered."""
    if engine.manifest.tokenizer is None:
        return ("input_ids", "int64"), ("output_ids", "int64")
    return ("text_input", "str"), ("text_output", "str")
