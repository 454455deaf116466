"""The ONNX file around a TensorRT-RTX plan. It is checked against the schema, never executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from lepton_compile.artifact import Artifact
from lepton_compile.errors import ArtifactError
from lepton_compile.serving import export_epcontext
from lepton_compile.serving.epcontext import PROVIDER, context_model
from tests.serving.artifacts import PLAN, changed, engine_of


def attributes(model: onnx.ModelProto) -> dict[str, Any]:
    (node,) = model.graph.node
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def test_one_node_between_the_manifests_inputs_and_outputs(
    rtx_encoder: Artifact, tmp_path: Path
) -> None:
    folder = export_epcontext(rtx_encoder.path, tmp_path / "out")
    assert sorted(p.name for p in folder.iterdir()) == ["model.onnx", "model.plan"]
    assert (folder / "model.plan").read_bytes() == PLAN
    model = onnx.load(folder / "model.onnx")
    (node,) = model.graph.node
    assert (node.op_type, node.domain) == ("EPContext", "com.microsoft")
    assert list(node.input) == [spec["name"] for spec in rtx_encoder.manifest.inputs]
    assert list(node.output) == [spec["name"] for spec in rtx_encoder.manifest.outputs]
    assert [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim] == [
        *("batch", "sequence")
    ]


def test_the_plan_is_named_beside_the_file(rtx_encoder: Artifact) -> None:
    found = attributes(onnx.load_from_string(context_model(engine_of(rtx_encoder, "trt-rtx"))))
    assert found["embed_mode"] == 0
    assert found["ep_cache_context"] == b"model.plan"
    assert found["ep_sdk_version"] == b"10701"
    assert found["hardware_architecture"] == b"80+"
    assert found["source"].decode() == PROVIDER


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [(["portable"], b"80+"), (["8.9"], b"89"), (["8.6", "12.0"], b"86,120")],
)
def test_hardware_in_the_providers_words(
    rtx_encoder: Artifact, capabilities: list[str], expected: bytes
) -> None:
    engine = changed(engine_of(rtx_encoder, "trt-rtx"), {"compute_capabilities": capabilities})
    found = attributes(onnx.load_from_string(context_model(engine)))
    assert found["hardware_architecture"] == expected


def test_attributes_and_types_are_those_of_onnxruntimes_schema(rtx_encoder: Artifact) -> None:
    state = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    (schema,) = (s for s in state.get_all_operator_schema() if s.name == "EPContext")
    found = attributes(onnx.load_from_string(context_model(engine_of(rtx_encoder, "trt-rtx"))))
    for name, value in found.items():
        kind = str(schema.attributes[name].type).rpartition(".")[2]
        assert kind == ("INT" if isinstance(value, int) else "STRING"), name


def test_onnxruntime_takes_the_graph_and_misses_only_the_provider(
    rtx_encoder: Artifact, tmp_path: Path
) -> None:
    ort = pytest.importorskip("onnxruntime")
    folder = export_epcontext(rtx_encoder.path, tmp_path / "out")
    with pytest.raises(Exception, match="EPContext") as caught:
        ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert "NOT_IMPLEMENTED" in str(caught.value) or "NotImplemented" in type(caught.value).__name__


def test_a_cache_in_place_and_a_plugin_are_refused(rtx_encoder: Artifact, tmp_path: Path) -> None:
    from lepton_compile.serving.epcontext import _refuse_unserved

    engine = engine_of(rtx_encoder, "trt-rtx")
    with pytest.raises(ArtifactError) as caught:
        _refuse_unserved(changed(engine, cache={"layers": []}))
    assert "KV cache" in str(caught.value.found)
    with pytest.raises(ArtifactError) as caught:
        _refuse_unserved(changed(engine, {"plugin": {"name": "CachedAttention"}}))
    assert "plugin" in str(caught.value.found)


def test_a_plan_of_unknown_version_is_refused(rtx_encoder: Artifact) -> None:
    engine = changed(engine_of(rtx_encoder, "trt-rtx"), {"requires": {}})
    with pytest.raises(ArtifactError, match="which TensorRT-RTX"):
        context_model(engine)


def test_an_artifact_without_a_plan_is_refused(encoder: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        export_epcontext(encoder.path, tmp_path / "out")
    assert caught.value.available == ("trt-rtx",)
