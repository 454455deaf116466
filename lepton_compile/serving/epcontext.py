"""A TensorRT-RTX plan as an ONNX file, for onnxruntime's provider of that name.

The file holds one ``EPContext`` node of the domain ``com.microsoft``: the interface comes from the
manifest, the engine from the plan beside it. The provider opens it with the TensorRT-RTX it
brings along, which must be the version that built the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_compile.errors import ArtifactError
from lepton_compile.serving.engine import ServedEngine, open_engine
from lepton_compile.serving.output import OutputFolder

__all__ = ["PROVIDER", "context_model", "export_epcontext"]

PROVIDER = "NvTensorRTRTXExecutionProvider"
MODEL_FILE = "model.onnx"

_PACKAGE = "tensorrt-rtx"
# Every GPU from Ampere on, in the words of the provider.
_PORTABLE = "80+"


def export_epcontext(artifact: str | Path, output: str | Path, *, copy: bool = False) -> Path:
    """Write a folder with ``model.onnx`` and the plan it names.

    Args:
        artifact: folder with an engine for ``trt-rtx``.
        output: folder to make; it must not exist.
        copy: copy the plan instead of linking it.

    Returns:
        The folder.

    Raises:
        ArtifactError: the artifact is not intact or has no such engine, the engine keeps a cache
            in place or needs a plugin, or the output exists.
    """
    engine = open_engine(artifact, ("trt-rtx",), "onnxruntime's TensorRT-RTX provider")
    _refuse_unserved(engine)
    with OutputFolder(output, copy=copy) as folder:
        folder.write(MODEL_FILE, context_model(engine))
        folder.place(engine.model_file, engine.model_file.name)
    return folder.output


def context_model(engine: ServedEngine) -> bytes:
    """The ONNX file: inputs and outputs of the engine around one node."""
    import onnx
    from onnx import helper

    inputs = [_value(value) for value in engine.inputs]
    outputs = [_value(value) for value in engine.outputs]
    node = helper.make_node(
        "EPContext",
        [value.name for value in inputs],
        [value.name for value in outputs],
        name="lepton_compile",
        domain="com.microsoft",
        main_context=1,
        embed_mode=0,
        ep_cache_context=engine.model_file.name,
        ep_sdk_version=str(_sdk_number(engine)),
        hardware_architecture=_architecture(engine.entry),
        partition_name="lepton_compile",
        source=PROVIDER,
    )
    graph = helper.make_graph([node], "epcontext", inputs, outputs)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model.producer_name, model.producer_version = "lepton-compile", engine.manifest.lepton
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _value(value: Mapping[str, Any]) -> Any:
    from onnx import TensorProto, helper

    dtype = {"bool": "BOOL", "bfloat16": "BFLOAT16"}.get(value["dtype"])
    number = TensorProto.DataType.Value(dtype) if dtype else _onnx_type(str(value["dtype"]))
    return helper.make_tensor_value_info(value["name"], number, list(value["shape"]))


def _onnx_type(dtype: str) -> int:
    import numpy as np
    from onnx import helper

    try:
        return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    except (TypeError, ValueError) as error:
        raise ArtifactError("ONNX has no type for this", found=dtype) from error


def _sdk_number(engine: ServedEngine) -> int:
    """1.7.1.116 -> 10701, the form in which the runtime itself gives its version."""
    named = (str(v) for k, v in engine.entry["requires"].items() if k.startswith(_PACKAGE))
    version = next(named, "").lstrip("=<>~ ")
    try:
        major, minor, patch = (int(part) for part in version.split(".")[:3])
    except ValueError:
        raise ArtifactError(
            "the manifest does not say which TensorRT-RTX built this plan",
            where="engines.requires",
            found=version or "nothing",
        ) from None
    return major * 10_000 + minor * 100 + patch


def _architecture(entry: Mapping[str, Any]) -> str:
    """Compute capabilities as the provider writes them: ``89``, ``80+``, or several."""
    named = [str(one) for one in entry.get("compute_capabilities") or ("portable",)]
    if "portable" in named:
        return _PORTABLE
    return ",".join(one.replace(".", "") for one in named)


def _refuse_unserved(engine: ServedEngine) -> None:
    reason = None
    if engine.manifest.cache is not None:
        reason = (
            "its KV cache is input and output in one buffer, which onnxruntime does not arrange"
        )
    elif engine.entry.get("plugin"):
        reason = "its plan needs a plugin that the provider does not have"
    if reason is not None:
        raise ArtifactError(
            "this engine cannot be wrapped for onnxruntime",
            found=reason,
            hint="run it with the artifact's own loader: python loader.py --prompt ...",
        )
