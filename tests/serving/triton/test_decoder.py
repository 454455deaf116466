"""The configuration of a decoder behind the Python backend."""

from __future__ import annotations

import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.serving.triton.decoder import decoder_config
from tests.serving.artifacts import changed, engine_of

pb = pytest.importorskip("tritonclient.grpc.model_config_pb2")


def test_text_in_text_out_and_everything_else_optional(decoder: Artifact) -> None:
    config = decoder_config(engine_of(decoder), "m", 2)
    assert config.model_transaction_policy.decoupled
    assert [v.name for v in config.input if not v.optional] == ["text_input"]
    kinds = {v.name: pb.DataType.Name(v.data_type) for v in config.input}
    assert kinds["text_input"] == kinds["stop"] == "TYPE_STRING"
    assert (kinds["max_tokens"], kinds["stream"]) == ("TYPE_INT32", "TYPE_BOOL")
    assert kinds["temperature"] == "TYPE_FP32"
    assert [v.name for v in config.output] == ["text_output"]
    assert config.instance_group[0].count == 2


def test_ids_without_a_tokenizer(decoder: Artifact) -> None:
    config = decoder_config(changed(engine_of(decoder), tokenizer=None), "m", 1)
    (asked,) = (v for v in config.input if not v.optional)
    assert (asked.name, list(asked.dims)) == ("input_ids", [-1])
    assert (config.output[0].name, list(config.output[0].dims)) == ("output_ids", [-1])


def test_an_engine_for_a_gpu_gets_one(decoder: Artifact) -> None:
    engine = changed(engine_of(decoder), {"target": "ort-cuda"})
    config = decoder_config(engine, "m", 1)
    assert config.instance_group[0].kind == pb.ModelInstanceGroup.KIND_GPU
    assert config.parameters["target"].string_value == "ort-cuda"
    assert config.parameters["threads"].string_value == "0"
