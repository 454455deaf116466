"""Parse and build one graph in a process of its own: the library may end a process.

``python -m tests.plugins.attention.trt_child`` reads a job from stdin and prints what it saw, both
JSON. A job: ``model`` (path), ``profiles``, ``links`` (folder), and optionally ``source`` (a
``plugin_runtime.py`` to register instead of the package's module), ``preview`` (false leaves the
flag for aliases unset), ``reopen`` (make plugins from serialized fields as an opened plan does).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lepton_compile.engines.tensorrt.child.library import load


def main() -> None:
    """Do the job on stdin."""
    job = json.load(sys.stdin)
    trt = load("tensorrt_rtx", "tensorrt_rtx_libs", Path(job["links"]))
    registration = _plugin(job).register(trt, *map(Path, job.get("folder", [])))
    seen = _build(trt, job)
    seen["failures"] = [str(error) for error in registration.failures]
    seen["variants"] = [variant.as_dict() for variant in registration.variants.values()]
    if job.get("reopen"):
        seen["reopened"] = _reopen(trt, registration, job["reopen"])
    seen["modules"] = [name for name in ("torch", "triton", "cuda") if name in sys.modules]
    print(json.dumps(seen))


def _plugin(job: dict[str, Any]) -> Any:
    if "source" not in job:
        from lepton_plugins.attention import plugin_v3

        return plugin_v3
    module = ModuleType("lepton_plugin_runtime")
    sys.modules[module.__name__] = module
    sys.modules["lepton_plugins"] = None  # type: ignore[assignment]  # an artifact has no package
    exec(compile(Path(job["source"]).read_text("utf-8"), job["source"], "exec"), module.__dict__)
    return module


def _build(trt: Any, job: dict[str, Any]) -> dict[str, Any]:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.lines.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    seen: dict[str, Any] = {"parsed": parser.parse_from_file(job["model"]), "built": 0}
    seen["layers"] = [network.get_layer(i).type.name for i in range(network.num_layers)]
    seen["errors"] = log.lines
    if not seen["parsed"]:
        return seen
    config = builder.create_builder_config()
    if job.get("preview", True):
        config.set_preview_feature(trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03, True)
    for shapes in job["profiles"]:
        profile = builder.create_optimization_profile()
        for name, (low, usual, high) in shapes.items():
            profile.set_shape(name, low, usual, high)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    seen["built"] = plan.nbytes if plan is not None else 0
    return seen


def _reopen(trt: Any, registration: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    """What a plan would hold of a plugin, and the plugin that is made of it."""
    creator = trt.get_plugin_registry().get_creator("CachedAttention", "1", "lepton")
    phase = trt.TensorRTPhase
    given = [(n, v, "INT32" if isinstance(v, int) else "FLOAT32") for n, v in attributes.items()]
    import numpy as np

    held = [np.array([v], "int32" if kind == "INT32" else "float32") for _, v, kind in given]
    fields = [
        trt.PluginField(name, array, getattr(trt.PluginFieldType, kind))
        for (name, _, kind), array in zip(given, held, strict=True)
    ]
    first = creator.create_plugin("parsed", trt.PluginFieldCollection(fields), phase.BUILD)
    types = [trt.DataType.BF16] * 3 + [trt.DataType.INT32] + [trt.DataType.INT8] * 2
    first.get_output_data_types(types)
    second = creator.create_plugin("opened", first.get_fields_to_serialize(), phase.RUNTIME)
    third = second.clone()
    seen = {"same": first.variant == second.variant == third.variant, "building": third.building}
    try:
        third.attach_to_context(None)
    except Exception as error:
        seen["attached"] = str(error)
    return seen | {"kept": [str(each) for each in registration.failures][-1:]}


if __name__ == "__main__":
    main()
