"""The configuration of an encoder that Triton's own backend opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lepton_compile.serving.engine import BATCH, ServedEngine
from lepton_compile.serving.triton.protobuf import data_type, messages
from lepton_compile.serving.triton.warmup import Sample

__all__ = ["BACKENDS", "LABELS_FILE", "encoder_config", "model_name"]

LABELS_FILE = "labels.txt"

BACKENDS = {
    "ort-cpu": ("onnxruntime", "onnxruntime_onnx", "KIND_CPU"),
    "ort-cuda": ("onnxruntime", "onnxruntime_onnx", "KIND_GPU"),
    "trt": ("tensorrt", "tensorrt_plan", "KIND_GPU"),
}
"""Target -> backend, platform, kind of instance."""

# How long a request may wait for others to join its batch.
QUEUE_DELAY_MICROSECONDS = 500


def encoder_config(
    engine: ServedEngine, name: str, instances: int, samples: Sequence[Sample]
) -> Any:
    """A ``ModelConfig``.

    Args:
        engine: without a KV cache.
        name: of the model; the folder it lies in has the same.
        instances: how many requests are computed at once, on each device.
        samples: requests to warm up with.
    """
    pb = messages()
    backend, platform, kind = BACKENDS[engine.target]
    batched = engine.batched
    largest = engine.limits(BATCH)[1] if batched else 0
    config = pb.ModelConfig(name=name, backend=backend, platform=platform, max_batch_size=largest)
    config.version_policy.latest.num_versions = 1
    for value in engine.inputs:
        _describe(config.input.add(), value, batched)
    for value in engine.outputs:
        _describe(config.output.add(), value, batched)
        if _is_labelled(engine, value):
            config.output[-1].label_filename = LABELS_FILE
    config.instance_group.add(kind=getattr(pb.ModelInstanceGroup, kind), count=instances)
    if largest > 1:
        _batch(config, engine)
    config.default_model_filename = model_name(engine)
    for capability in _capabilities(engine):
        config.cc_model_filenames[capability] = model_name(engine)
    _optimize(config, engine)
    for sample in samples:
        sample.add_to(config)
    return config


def model_name(engine: ServedEngine) -> str:
    """What Triton calls the model file: the name its backend looks for."""
    return "model.plan" if engine.target == "trt" else "model.onnx"


def _describe(entry: Any, value: Mapping[str, Any], batched: bool) -> None:
    """Name, type, and the dimensions after the batch: -1 where a caller chooses."""
    entry.name = value["name"]
    entry.data_type = messages().DataType.Value(data_type(value["dtype"]))
    shape = value["shape"][1:] if batched else value["shape"]
    entry.dims.extend([size if isinstance(size, int) else -1 for size in shape] or [1])
    if not shape:
        # Triton has no scalars: it carries one number, and hands the model none of the dimension.
        entry.reshape.SetInParent()


def _is_labelled(engine: ServedEngine, value: Mapping[str, Any]) -> bool:
    """A score for each label and nothing else: what Triton's classification extension reads."""
    labels = engine.manifest.labels or {}
    return bool(labels) and list(value["shape"]) == [BATCH, len(labels)]


def _batch(config: Any, engine: ServedEngine) -> None:
    """Requests join a batch up to the largest; sizes that a plan was tuned for are preferred."""
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_MICROSECONDS
    tuned = {_tuned_batch(profile) for profile in engine.entry.get("profiles") or ()}
    sizes = sorted(size for size in tuned if size and 1 < size <= config.max_batch_size)
    config.dynamic_batching.preferred_batch_size.extend(sizes)


def _tuned_batch(profile: Mapping[str, Any]) -> int | None:
    shapes = (profile.get("opt") or {}).values()
    return next((int(shape[0]) for shape in shapes if shape), None)


def _capabilities(engine: ServedEngine) -> list[str]:
    """Compute capabilities that a plan was built for; Triton picks the file by the GPU's."""
    found = engine.entry.get("compute_capabilities") or ()
    return [str(one) for one in found if one != "portable"] if engine.target == "trt" else []


def _optimize(config: Any, engine: ServedEngine) -> None:
    if config.backend == "onnxruntime":
        # 0 takes all cores; the graph is a chain, so that one operator runs at a time.
        for key in ("intra_op_thread_count", "execution_mode"):
            config.parameters[key].string_value = "0"
        if kernels := engine.entry.get("kernels"):
            config.model_operations.op_library_filename.append(kernels["library"])
    if engine.target != "ort-cpu":
        config.optimization.input_pinned_memory.enable = True
        config.optimization.output_pinned_memory.enable = True
    if engine.target == "trt":
        config.optimization.cuda.output_copy_stream = True
