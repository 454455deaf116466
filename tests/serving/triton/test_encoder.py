"""The configuration of an encoder, field by field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.errors import ArtifactError
from lepton_compile.serving.triton.encoder import encoder_config
from lepton_compile.serving.triton.warmup import encoder_samples
from tests.serving.artifacts import changed, engine_of

pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")


def config_of(engine: Any, instances: int = 1) -> Any:
    return encoder_config(engine, "m", instances, list(encoder_samples(engine)))


def shapes(values: Any) -> dict[str, list[int]]:
    return {value.name: list(value.dims) for value in values}


def test_dimensions_after_the_batch(encoder: Artifact) -> None:
    config = config_of(engine_of(encoder), instances=2)
    ids = ("input_ids", "attention_mask", "token_type_ids")
    assert shapes(config.input) == {name: [-1] for name in ids}
    assert shapes(config.output) == {"last_hidden_state": [-1, 32], "sentence_embedding": [32]}
    assert {pb.DataType.Name(v.data_type) for v in config.input} == {"TYPE_INT64"}
    assert {pb.DataType.Name(v.data_type) for v in config.output} == {"TYPE_FP32"}
    assert config.instance_group[0].count == 2
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_CPU
    assert config.version_policy.latest.num_versions == 1
    assert config.dynamic_batching.max_queue_delay_microseconds > 0


def test_kernels_of_our_own_are_named(encoder: Artifact) -> None:
    engine = engine_of(encoder)
    assert not config_of(engine).HasField("model_operations")
    own = replace(engine, entry={**engine.entry, "kernels": {"library": "ours.so"}})
    assert list(config_of(own).model_operations.op_library_filename) == ["ours.so"]


def test_a_model_of_single_texts_waits_for_no_batch(encoder: Artifact) -> None:
    engine = changed(engine_of(encoder), ranges={"batch": [1, 1], "sequence": [1, 16]})
    config = config_of(engine)
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


def test_without_a_common_batch_whole_shapes_are_named(encoder: Artifact) -> None:
    fixed = {"name": "table", "dtype": "float32", "shape": [4, 8]}
    engine = changed(engine_of(encoder), outputs=(*encoder.manifest.outputs, fixed))
    config = config_of(engine)
    assert config.max_batch_size == 0
    assert shapes(config.input)["input_ids"] == [-1, -1]
    assert shapes(config.output)["table"] == [4, 8]


def test_a_number_for_each_row_has_one_dimension_that_is_dropped(encoder: Artifact) -> None:
    score = {"name": "score", "dtype": "float32", "shape": ["batch"]}
    config = config_of(changed(engine_of(encoder), outputs=(score,)))
    (output,) = config.output
    assert list(output.dims) == [1]
    assert output.HasField("reshape")
    assert list(output.reshape.shape) == []


def test_a_type_that_triton_does_not_carry(encoder: Artifact) -> None:
    strange = {"name": "x", "dtype": "float8_e4m3fn", "shape": ["batch", 2]}
    with pytest.raises(ArtifactError) as caught:
        config_of(changed(engine_of(encoder), outputs=(strange,)))
    assert caught.value.found == "float8_e4m3fn"


@pytest.mark.parametrize(
    ("capabilities", "expected"), [(["9.0"], {"9.0": "model.plan"}), (["portable"], {}), ([], {})]
)
def test_plans_by_compute_capability(
    trt_encoder: Artifact, capabilities: list[str], expected: dict[str, str]
) -> None:
    engine = changed(engine_of(trt_encoder, "trt"), {"compute_capabilities": capabilities})
    assert dict(config_of(engine).cc_model_filenames) == expected


def test_a_gpu_gets_pinned_memory_and_its_largest_batch_warmed_up(trt_encoder: Artifact) -> None:
    config = config_of(engine_of(trt_encoder, "trt"))
    assert config.optimization.input_pinned_memory.enable
    assert config.optimization.cuda.output_copy_stream
    assert [sample.name for sample in config.model_warmup] == ["1x16", "64x16"]
    cpu = config_of(engine_of(trt_encoder))
    assert not cpu.HasField("optimization")
    assert cpu.parameters["intra_op_thread_count"].string_value == "0"
