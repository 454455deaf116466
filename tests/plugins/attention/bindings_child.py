"""The bindings of TensorRT 11 themselves, without its libraries: plugins as its template runs them.

``python -m tests.plugins.attention.bindings_child WHEEL FACE`` reads a list of jobs (op, tensors,
attributes) from stdin and prints what TensorRT would learn of each, both JSON. What a library would
give, the registry and the arithmetic of shapes, is done here in Python; classes, registration, the
checks of signatures, types, shapes and launch parameters are the bindings' own. Needs ``gcc`` for
the stand-in of the libraries. FACE is ``qdp`` or ``v3``.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lepton_plugins.attention import plugin_qdp, plugin_v3
from tests.plugins.attention.qdp_kernels import kernel_of

STUBS = Path(__file__).parents[3] / "scripts" / "stubs" / "tensorrt.py"


class Dimension:
    """A dimension expression: a number that only the builder may compute with."""

    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        """No: the arithmetic has to hold for other shapes, too."""
        return False

    def get_constant_value(self) -> int:
        """The number."""
        return self.value


class Arithmetic:
    """The builder of expressions."""

    def constant(self, value: int) -> Dimension:
        """A number."""
        return Dimension(value)

    def operation(self, kind: Any, left: Dimension, right: Dimension) -> Dimension:
        """One step of arithmetic."""
        a, b = left.value, right.value
        ways = {"SUM": a + b, "SUB": a - b, "PROD": a * b, "FLOOR_DIV": a // b if b else 0}
        return Dimension(ways[kind.name])


class Registry:
    """Where creators are kept."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str = "") -> bool:
        """Keep one."""
        self.creators[creator.name, creator.plugin_version, namespace] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str = "") -> Any:
        """Find one."""
        return self.creators.get((name, version, namespace))

    def deregister_creator(self, creator: Any) -> bool:
        """Forget one."""
        known = [key for key, each in self.creators.items() if each is creator]
        return all(self.creators.pop(key) for key in known)


class Scalars(dict[int, Any]):
    """Where a plugin puts its scalars."""

    nbSymExprs = 0  # noqa: N815


def main(wheel: str, face: str) -> None:
    """Run the jobs on stdin."""
    trt = _bindings(Path(wheel))
    jobs = json.load(sys.stdin)
    print(json.dumps([_RUN[face](trt, *job) for job in jobs]))


def _bindings(wheel: Path) -> Any:
    spec = importlib.util.spec_from_file_location("stubs", STUBS)
    assert spec is not None
    assert spec.loader is not None
    stubs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stubs)
    trt = stubs.bindings(wheel, Path(tempfile.mkdtemp()))
    registry = Registry()
    trt.get_plugin_registry = lambda: registry
    trt.IDimensionExpr, trt.DimsExprs = Dimension, lambda length: [None] * length
    trt.ISymExpr = type("ISymExpr", (), {})
    return trt


def _qdp(trt: Any, op: str, tensors: list[Any], attributes: dict[str, Any]) -> dict[str, Any]:
    """The kernel of a node, as the template of the bindings gets it."""
    from tensorrt_bindings import plugin as trtp
    from tensorrt_bindings.plugin._lib import QDP_REGISTRY

    plugin_qdp.register(trt, trtp, kernel_of, 90)
    builder = Arithmetic()
    creator = trt.get_plugin_registry().get_creator(op, "1", "lepton")
    fields = _fields(trt, creator, attributes)
    # In TensorRT's order, which is that of the creator's own list.
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    plugin = creator.create_plugin(op, "lepton", fields, trt.TensorRTPhase.BUILD, request)
    types = [getattr(trt.DataType, dtype) for dtype, _ in tensors]
    made = plugin.get_output_data_types(types, [len(shape) for _, shape in tensors])
    shapes = [[Dimension(size) for size in shape] for _, shape in tensors]
    outputs = [[each.value for each in s] for s in plugin.get_output_shapes(shapes, [], builder)]
    both = [_desc(trt, t, s) for t, s in zip(types, [s for _, s in tensors], strict=True)]
    both += [_desc(trt, t, s) for t, s in zip(made, outputs, strict=True)]
    count = len(tensors)
    plugin.get_supported_format_combinations(both, count)
    plugin.configure_plugin(both[:count], both[count:])
    plugin.set_tactic(0)
    params, scalars = SimpleNamespace(), Scalars()
    plugin.get_launch_params(shapes, both, count, params, scalars, builder)
    kernel = plugin.get_kernel([d.desc for d in both[:count]], [d.desc for d in both[count:]])
    assert QDP_REGISTRY[f"lepton::{op}"].num_outputs == len(outputs)
    names = ("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_mem")
    return {
        "entry": kernel[0],
        "code": kernel[1].decode(),
        "sizes": [getattr(params, name).expr.value for name in names],
        "scalars": [scalars[index].expr.value for index in range(scalars.nbSymExprs)],
        "outputs": [[t.name, s] for t, s in zip(made, outputs, strict=True)],
        "aliases": [plugin.get_aliased_input(index) for index in range(len(outputs))],
    }


class Recorded(list[Any]):
    """Kernels that note what they are asked to do."""

    def prepare(self, variant: Any) -> None:
        """Load."""
        self.append(["prepare", variant.key])

    def launch(self, variant: Any, pointers: dict[str, int], **named: Any) -> None:
        """Run."""
        named["most_splits"] = named["most_splits"](
            named["batch"], named["sequence"], named["capacity"]
        )
        self.append(["launch", variant.key, pointers, named])


def _v3(trt: Any, op: str, tensors: list[Any], attributes: dict[str, Any]) -> dict[str, Any]:
    """A plugin through both of its lives: parsed and built, opened and run."""
    registration = plugin_v3.register(trt)
    creator = trt.get_plugin_registry().get_creator(op, "1", "lepton")
    fields, phase = _fields(trt, creator, attributes), trt.TensorRTPhase
    plugin = creator.create_plugin(op, fields, phase.BUILD)
    assert isinstance(plugin, trt.IPluginV3)
    assert isinstance(plugin, trt.IPluginV3OneBuildV2)
    types = [getattr(trt.DataType, dtype) for dtype, _ in tensors]
    made = plugin.get_output_data_types(types)
    shapes = [[Dimension(size) for size in shape] for _, shape in tensors]
    for cache in shapes[4:6]:
        cache[2].is_constant = lambda: True  # type: ignore[method-assign]
    outputs = [[e.value for e in s] for s in plugin.get_output_shapes(shapes, [], Arithmetic())]
    both = [_desc(trt, t, s) for t, s in zip(types, [s for _, s in tensors], strict=True)]
    both += [_desc(trt, t, s) for t, s in zip(made, outputs, strict=True)]
    count = len(tensors)
    for each in both:
        each.min = each.max = each.desc.dims
    fits = [plugin.supports_format_combination(at, both, count) for at in range(len(both))]
    plugin.configure_plugin(both[:count], both[count:])
    workspace = plugin.get_workspace_size(both[:count], both[count:])
    opened = creator.create_plugin(op, plugin.get_fields_to_serialize(), phase.RUNTIME)
    registration.kernels = Recorded()
    attached = opened.attach_to_context(None).clone()
    addresses = [4096 * (at + 1) for at in range(count)]
    written = [77, addresses[4], addresses[5]]
    descs = [each.desc for each in both]
    attached.on_shape_change(descs[:count], descs[count:])
    attached.enqueue(descs[:count], descs[count:], addresses, written, 55, 66)
    return {
        "outputs": [[t.name, s] for t, s in zip(made, outputs, strict=True)],
        "aliases": [plugin.get_aliased_input(index) for index in range(len(outputs))],
        "fits": fits,
        "workspace": workspace,
        "calls": list(registration.kernels),
        "failures": [str(each) for each in registration.failures],
    }


_RUN = {"qdp": _qdp, "v3": _v3}


def _fields(trt: Any, creator: Any, attributes: dict[str, Any]) -> Any:
    import numpy as np

    made = []
    for field in creator.field_names:
        value = attributes[field.name]
        if isinstance(value, str):
            made.append(trt.PluginField(field.name, value.encode(), trt.PluginFieldType.CHAR))
        else:
            _KEPT.append(np.array([value], field.type.name.lower()))
            made.append(trt.PluginField(field.name, _KEPT[-1], field.type))
    return trt.PluginFieldCollection(made)


_KEPT: list[Any] = []


def _desc(trt: Any, dtype: Any, shape: list[int]) -> Any:
    made = trt.DynamicPluginTensorDesc()
    made.desc.type, made.desc.format = dtype, trt.TensorFormat.LINEAR
    made.desc.dims = trt.Dims(shape)
    return made


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
