"""The op as quickly deployable plugins of TensorRT 11, compiled into the plan itself.

Such a plugin is one kernel, with its PTX and the arithmetic of its grid: a plan that holds it needs
neither Python nor a library of ours. It has no workspace and no code on the host, so that a node of
the op becomes two nodes, chosen when the graph is lowered (``qdp_nodes.expand``):

    reads prompts    CachedAttentionAppend, CachedAttentionPrefill     right for any sequence
    adds tokens      CachedAttentionDecode, CachedAttentionCombine     up to DECODE_SEQUENCE tokens

The partial results between the last two are tensors of the graph. Inputs and outputs of each are
those of its kernel in ``launch.KERNELS``, in that order, as TensorRT passes inputs, scalars and
outputs in that order, too. A plugin that reads sinks has ``Sinks`` at the end of its name, since
the number of inputs is part of a plugin.

Attributes are all required: a plugin of this kind knows no defaults.

Names and arguments are those of the bindings of TensorRT 11.4; built, never executed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lepton_plugins.attention.launch import KERNELS, dimensions, grid
from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.tiles import tiles_for
from lepton_plugins.attention.trt_fields import TRT_DTYPES
from lepton_plugins.attention.variant import Variant

__all__ = ["SINKS", "STEPS", "AotFace", "AotKernel", "Step", "register", "step_named"]

SINKS = "Sinks"
_READ_SINKS = ("prefill", "combine")
_TRT_TYPES = {"float16": "HALF", "bfloat16": "BF16"}


class AotKernel(Protocol):
    """What the toolchain makes of one kernel; ``ptx`` takes the arguments of the contract only."""

    @property
    def entry(self) -> str: ...
    @property
    def ptx(self) -> str: ...
    @property
    def num_warps(self) -> int: ...
    @property
    def shared(self) -> int: ...


Compile = Callable[[str, Variant, int], AotKernel]
"""(kernel, variant, architecture) -> PTX."""


@dataclass(frozen=True)
class Step:
    """One plugin: a kernel, with or without sinks."""

    kernel: str
    sinks: bool

    @property
    def op(self) -> str:
        """Its name in a graph."""
        return f"{SPEC.name}{self.kernel.capitalize()}{SINKS if self.sinks else ''}"

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors it reads, in order."""
        return tuple(n for n in KERNELS[self.kernel].inputs if n != "sinks" or self.sinks)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Tensors it writes, in order."""
        return KERNELS[self.kernel].outputs

    @property
    def attributes(self) -> dict[str, type]:
        """Those of the op; ``splits`` of decode; ``dtype`` where no input has it."""
        found: dict[str, type] = {
            attribute.name: int if attribute.type == "int" else float
            for attribute in SPEC.attributes
        }
        if self.kernel == "decode":
            found["splits"] = int
        if self.kernel == "combine":
            found["dtype"] = str
        return found


STEPS = tuple(
    Step(kernel, sinks)
    for kernel in KERNELS
    for sinks in ((False, True) if kernel in _READ_SINKS else (False,))
)


def step_named(op: str) -> Step | None:
    """The step that ``op`` names, if any."""
    return next((step for step in STEPS if step.op == op), None)


@dataclass
class AotFace:
    """What the plugins ask while a plan is built.

    Attributes:
        architecture: 90 for compute capability 9.0: the GPU that the plan is built for.
        variants: kernels that plans asked for, by name of the op.
    """

    compile: Compile
    architecture: int
    variants: dict[str, set[Variant]] = field(default_factory=dict)


_FACES: dict[str, AotFace] = {}


def register(trt: Any, trtp: Any, compile: Compile, architecture: int) -> AotFace:
    """Make the steps known to TensorRT 11.

    Args:
        trt, trtp: the modules ``tensorrt`` and ``tensorrt.plugin``.

    A process registers them once; later calls change what they compile with.
    """
    face = _FACES.get(trtp.__name__)
    if face is not None:
        face.compile, face.architecture = compile, architecture
        return face
    face = _FACES[trtp.__name__] = AotFace(compile, architecture)
    for step in STEPS:
        name = f"{SPEC.namespace}::{step.op}"
        trtp.register(name)(_describe(step, trt, trtp))
        trtp.aot_impl(name)(_implement(step, trt, trtp, face))
    return face


def _describe(step: Step, trt: Any, trtp: Any) -> Callable[..., Any]:
    """The function that tells TensorRT the outputs; its signature is that of the plugin."""

    def describe(*tensors: Any, **attributes: Any) -> Any:
        given = dict(zip(step.inputs, tensors, strict=True))
        made = tuple(_output(name, given, attributes, trt, trtp) for name in step.outputs)
        return made if len(made) > 1 else made[0]

    kinds = [trtp.TensorDesc] * len(step.outputs)
    result = tuple[tuple(kinds)] if len(kinds) > 1 else trtp.TensorDesc  # type: ignore[misc]
    return _signed(describe, step, trtp, (), result)


def _implement(step: Step, trt: Any, trtp: Any, face: AotFace) -> Callable[..., Any]:
    """The function that gives the kernel and the arithmetic of its launch."""
    names = (*step.inputs, *step.attributes, "outputs", "tactic")

    def implement(*arguments: Any) -> Any:
        given = dict(zip(names, arguments, strict=True))
        variant = _variant(step, given)
        face.variants.setdefault(step.op, set()).add(variant)
        kernel = face.compile(step.kernel, variant, face.architecture)
        sizes: Any = _sizes(step, given, variant, face.architecture)
        x, y, z = grid(step.kernel, sizes)
        launch = trtp.KernelLaunchParams(
            grid_x=x,
            grid_y=y,
            grid_z=z,
            block_x=32 * kernel.num_warps,
            shared_mem=kernel.shared,
        )
        scalars = KERNELS[step.kernel].scalars
        extra = trtp.SymIntExprs(len(scalars))
        for index, name in enumerate(scalars):
            extra[index] = trtp.SymInt32(sizes[name])
        return kernel.entry, kernel.ptx, launch, extra

    extra = (("outputs", tuple[trtp.TensorDesc]), ("tactic", int))
    result = tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]
    return _signed(implement, step, trtp, extra, result)


def _signed(
    function: Callable[..., Any],
    step: Step,
    trtp: Any,
    extra: tuple[tuple[str, Any], ...],
    result: Any,
) -> Callable[..., Any]:
    """``function`` with the signature that TensorRT reads inputs and attributes from."""
    parameters = [(name, trtp.TensorDesc) for name in step.inputs]
    parameters += [*step.attributes.items(), *extra]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, annotation=each) for name, each in parameters],
        return_annotation=result,
    )
    return function


def _output(
    name: str, given: dict[str, Any], attributes: dict[str, Any], trt: Any, trtp: Any
) -> Any:
    if name == "present_key":
        return given["key_cache"].aliased()
    if name == "present_value":
        return given["value_cache"].aliased()
    heads, width = attributes["kv_num_heads"], attributes["head_dim"]
    group = attributes["q_num_heads"] // heads
    if name in ("partial", "partial_lse"):
        batch, sequence, _ = given["query"].shape_expr
        lines = (batch, heads, attributes["splits"], sequence * group)
        shape = (*lines, width) if name == "partial" else lines
        return trtp.from_shape_expr(shape, trt.DataType.FLOAT)
    if "query" in given:
        return given["query"].like()
    batch, _, _, rows, _ = given["partial"].shape_expr
    flat = (batch, rows // group, attributes["q_num_heads"] * width)
    return trtp.from_shape_expr(flat, getattr(trt.DataType, _TRT_TYPES[attributes["dtype"]]))


def _variant(step: Step, given: dict[str, Any]) -> Variant:
    like = given.get("query", given.get("key"))
    dtype = given["dtype"] if like is None else TRT_DTYPES[like.dtype.name]
    cache = TRT_DTYPES[given["key_cache"].dtype.name] if "key_cache" in given else dtype
    attributes = {
        attribute.name: _as_stored(given[attribute.name], attribute.type)
        for attribute in SPEC.attributes
    }
    return Variant.from_attributes(attributes, dtype=dtype, cache_dtype=cache, sinks=step.sinks)


def _as_stored(value: Any, kind: str) -> Any:
    """As a graph stores it: what came as float64 names the same kernels as what came as float32."""
    return int(value) if kind == "int" else float(np.float32(value))


def _sizes(
    step: Step, given: dict[str, Any], variant: Variant, architecture: int
) -> dict[str, Any]:
    """Sizes by name, each a number or an expression that TensorRT evaluates for each shape."""
    capacity: Any = 0
    splits: Any = given.get("splits", 1)
    if step.kernel == "combine":
        batch, _, splits, rows, _ = given["partial"].shape_expr
        sequence = rows // variant.group
    else:
        batch, sequence, _ = given["query" if "query" in given else "key"].shape_expr
        capacity = given["key_cache"].shape_expr[2]
    tiles = tiles_for(step.kernel, architecture, variant)
    sizes: dict[str, Any] = dimensions(
        variant, tiles, batch=batch, sequence=sequence, capacity=capacity, splits=splits
    )
    return sizes
