"""Parse and build one graph in a process of its own: the library may end a process.

``python -m tests.plugins.attention.trt_child`` reads a job from stdin and prints what it saw, both
JSON. A job: ``model`` (path), ``profiles``, ``links`` (folder), and optionally ``source`` (a
``plugin_runtime.py`` to register instead of the package's module), ``preview`` (false leaves the
flag for aliases unset), ``reopen`` (make plugins from serialized fields as an opened plan does),
``run`` (batch and sequence to enqueue then, on a driver that notes what it is asked to do).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from lepton_compile.engines.tensorrt.child.library import load

TYPES = ("BF16", "BF16", "BF16", "INT32", "BF16", "BF16")
ADDRESSES = [0x1000, 0x2000, 0x3000, 0x4004, 0x5000, 0x6000]


def main() -> None:
    """Do the job on stdin."""
    job = json.load(sys.stdin)
    trt = load("tensorrt_rtx", "tensorrt_rtx_libs", Path(job["links"]))
    registration = _plugin(job).register(trt, *map(Path, job.get("folder", [])))
    seen = _build(trt, job)
    seen["variants"] = [variant.as_dict() for variant in registration.variants.values()]
    if job.get("reopen"):
        opened, seen["reopened"] = _reopen(trt, registration, job["reopen"])
        if job.get("run"):
            seen["launches"] = _run(trt, registration, opened, *job["run"])
    seen["failures"] = [str(error) for error in registration.failures]
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


def _reopen(trt: Any, registration: Any, attributes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The plugin that is made of what a plan holds of one, and whether it is the same."""
    import numpy as np

    creator = trt.get_plugin_registry().get_creator("CachedAttention", "1", "lepton")
    phase = trt.TensorRTPhase
    given = [(n, v, "INT32" if isinstance(v, int) else "FLOAT32") for n, v in attributes.items()]
    held = [np.array([v], kind.lower()) for _, v, kind in given]
    fields = [
        trt.PluginField(name, array, getattr(trt.PluginFieldType, kind))
        for (name, _, kind), array in zip(given, held, strict=True)
    ]
    first = creator.create_plugin("parsed", trt.PluginFieldCollection(fields), phase.BUILD)
    first.get_output_data_types([getattr(trt.DataType, name) for name in TYPES])
    second = creator.create_plugin("opened", first.get_fields_to_serialize(), phase.RUNTIME)
    third = second.clone()
    seen = {"same": first.variant == second.variant == third.variant, "building": third.building}
    if registration.kernels is None:
        try:
            third.attach_to_context(None)
        except Exception as error:
            seen["attached"] = str(error)
        seen["kept"] = [str(each) for each in registration.failures][-1:]
    return third, seen


class Driver:
    """An H100 that loads and launches nothing."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def capability(self) -> int:
        """Compute capability 9.0."""
        return 90

    def processors(self) -> int:
        """As many as one of them has."""
        return 132

    def load(self, image: bytes) -> str:
        """Note the size."""
        self.calls.append(["load", image[:4] == b"\x7fELF"])
        return "module"

    def function(self, module: str, entry: str, shared: int) -> str:
        """Its name."""
        return entry

    def launch(self, function: str, grid: Any, threads: int, shared: int, *rest: Any) -> None:
        """Note it all."""
        stream, arguments, sizes = rest
        self.calls.append([function, grid, threads, shared, stream, [*arguments], [*sizes]])


def _run(trt: Any, registration: Any, plugin: Any, batch: int, sequence: int) -> list[Any]:
    """What the plugin launches, by way of the classes of the bindings."""
    driver = Driver()
    registration.kernels._driver = driver
    attached = plugin.attach_to_context(None)
    driver.calls.append("attached")
    shapes = [(batch, sequence, 4 * 64), (batch, sequence, 64), (batch, sequence, 64), (batch,)]
    shapes += [(batch, 1, 4096, 64)] * 2
    inputs = [_desc(trt, kind, shape) for kind, shape in zip(TYPES, shapes, strict=True)]
    outputs = [inputs[0], *inputs[4:]]
    attached.on_shape_change(inputs, outputs)
    attached.enqueue(inputs, outputs, ADDRESSES[:6], [0x7000, *ADDRESSES[4:6]], 0x9000, 42)
    try:
        attached.enqueue(inputs, outputs, ADDRESSES[:6], [0x7000, 0x8000, 0x8100], 0x9000, 42)
    except Exception as error:
        driver.calls.append(str(error))
    return driver.calls


def _desc(trt: Any, kind: str, shape: tuple[int, ...]) -> Any:
    made = trt.PluginTensorDesc()
    made.dims, made.type = trt.Dims(shape), getattr(trt.DataType, kind)
    return made


if __name__ == "__main__":
    main()
