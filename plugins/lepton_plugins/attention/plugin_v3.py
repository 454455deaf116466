"""The op as an ``IPluginV3`` of TensorRT-RTX 1.7 and TensorRT 11, from one source.

Nothing here imports either: ``register`` is given the module. TensorRT asks a plugin in two lives.
While a plan is built it asks for types, shapes, aliases and workspace; there may be no GPU, and
nothing touches CUDA. In a plan that is opened, it has the plugin attached to a context, which loads
the kernels, and enqueued, which launches them. TensorRT 11 also enqueues while it builds, to time
the plugin; TensorRT-RTX does not.

The caches go in and come out at one address, which needs
``PreviewFeature.ALIASED_PLUGIN_IO_10_03``. Plugins in Python run with the interpreter's lock held;
what a CUDA graph has captured does not come back here.

The bindings print an exception that is raised here to stderr, and TensorRT goes on with an error of
its own that says less: ``Registration.failures`` keeps the exceptions.

Parsed, built and serialized with TensorRT-RTX 1.7; no plan has been executed yet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lepton_plugins.attention.launcher import Kernels
from lepton_plugins.attention.spec import SPEC
from lepton_plugins.attention.trt_fields import (
    TRT_DTYPES,
    Fields,
    attributes_of,
    declared,
    variant_of,
)
from lepton_plugins.attention.variant import Variant
from lepton_plugins.attention.workspace import most_splits, workspace_for
from lepton_plugins.spec import PluginError

__all__ = ["Registration", "register"]

QUERY, KEY_CACHE, VALUE_CACHE = 0, 4, 5
ALIASES = {1: KEY_CACHE, 2: VALUE_CACHE}  # output -> input
_INPUTS = tuple(tensor.name for tensor in SPEC.inputs)
_OUTPUTS = tuple(tensor.name for tensor in SPEC.outputs)
_CREATORS: list[Any] = []  # TensorRT holds no reference to them

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass
class Registration:
    """What ``register`` made known.

    Attributes:
        kernels: those of the folder; None while a plan is built without them.
        failures: exceptions that TensorRT swallowed, oldest first.
        variants: those that a plan asked for.
    """

    trt: Any
    kernels: Kernels | None = None
    failures: list[Exception] = field(default_factory=list)
    variants: dict[str, Variant] = field(default_factory=dict)


def register(trt: Any, folder: Path | None = None) -> Registration:
    """Make the plugin known to ``trt``, the module of TensorRT or TensorRT-RTX.

    Plans that are opened from now on take their kernels from ``folder``, what ``emit`` wrote; those
    that are open keep theirs.

    Raises:
        PluginError: the folder holds no kernels, or TensorRT declines.
    """
    registration = Registration(trt, None if folder is None else Kernels(folder / "kernels"))
    registry = trt.get_plugin_registry()
    known = registry.get_creator(SPEC.name, SPEC.version, SPEC.namespace)
    if known is not None:
        registry.deregister_creator(known)
    creator = _creator_class(trt)(registration)
    if not registry.register_creator(creator, SPEC.namespace):
        raise PluginError(f"{trt.__name__} does not take the plugin", where=SPEC.name)
    _CREATORS.append(creator)
    return registration


def _keeping(method: Method) -> Method:
    """``method``, whose exceptions are kept before TensorRT swallows them."""

    @functools.wraps(method)
    def kept(self: Any, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except Exception as error:
            self.registration.failures.append(error)
            raise

    return kept  # type: ignore[return-value]


class _Attention:
    """What the plugin does; ``_plugin_class`` adds the interfaces of a TensorRT.

    ``variant`` is None until the types of the inputs are known.
    """

    def __init__(
        self,
        registration: Registration,
        attributes: dict[str, Any],
        variant: Variant | None = None,
        *,
        building: bool,
    ) -> None:
        self.plugin_name, self.plugin_version = SPEC.name, SPEC.version
        self.plugin_namespace, self.num_outputs = SPEC.namespace, len(SPEC.outputs)
        self.registration, self.attributes, self.building = registration, attributes, building
        self.variant = variant
        self.held: Fields | None = None

    def get_capability_interface(self, kind: Any) -> Any:
        """Core, build and runtime are one object."""
        return self

    def clone(self) -> Any:
        """Another one with the same state."""
        return type(self)(self.registration, self.attributes, self.variant, building=self.building)

    # ---- While a plan is built.

    @_keeping
    def get_output_data_types(self, types: Sequence[Any]) -> list[Any]:
        """The output has the type of the query, the caches keep theirs."""
        self._learn(types)
        return [types[QUERY], types[KEY_CACHE], types[VALUE_CACHE]]

    @_keeping
    def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> list[Any]:
        """Output like query, present like past."""
        self._check_shapes(inputs)
        return [self._same(inputs[index]) for index in (QUERY, KEY_CACHE, VALUE_CACHE)]

    def get_aliased_input(self, output: int) -> int:
        """The input whose memory ``output`` is, -1 for none."""
        return ALIASES.get(output, -1)

    def supports_format_combination(self, position: int, both: Any, inputs: int) -> bool:
        """Plain row-major tensors, of the types that there are kernels for."""
        trt, here = self.registration.trt, both[position].desc
        if here.format != trt.TensorFormat.LINEAR:
            return False
        first = QUERY if position < inputs else inputs
        if position >= inputs:  # an output has the type of the input that it is like
            like = ALIASES.get(position - first, QUERY)
            return bool(here.type == both[like].desc.type)
        if position in (1, 2, VALUE_CACHE):
            return bool(here.type == both[position - 1].desc.type)
        return TRT_DTYPES.get(here.type.name, "") in SPEC.inputs[position].dtypes

    @_keeping
    def configure_plugin(self, inputs: Any, outputs: Any) -> None:
        """The types are final, and the largest shapes of a profile known."""
        self._learn([each.desc.type for each in inputs])
        # Kernels count with 32 bits inside a row of the batch, and a grid has 16 for rows.
        (batch, sequence, width), cache = inputs[QUERY].max, inputs[KEY_CACHE].max
        if sequence * width >= 2**31 or cache[2] * cache[3] >= 2**31 or batch >= 2**16:
            raise PluginError(
                f"{SPEC.name} has no kernels for shapes this large",
                found=f"query {(batch, sequence, width)}, caches {tuple(cache)}",
                available=("less than 2**31 numbers in a row of the batch", "65535 rows"),
            )

    @_keeping
    def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
        """Room for the partial results of the largest step of this profile."""
        assert self.variant is not None
        batch, sequence = inputs[QUERY].max[0], inputs[QUERY].max[1]
        return workspace_for(self.variant, batch, sequence, inputs[KEY_CACHE].max[2])

    def get_fields_to_serialize(self) -> Any:
        """What ``create_plugin`` gets back when the plan is opened."""
        assert self.variant is not None
        kept = {name: getattr(self.variant, name) for name in ("dtype", "cache_dtype", "sinks")}
        self.held = Fields(self.registration.trt, self.attributes | kept)
        return self.held.collection

    def _learn(self, types: Sequence[Any]) -> None:
        names = [TRT_DTYPES.get(each.name, each.name) for each in types]
        self.variant = variant_of(self.attributes, names)
        self.registration.variants[self.variant.key] = self.variant

    def _check_shapes(self, inputs: Any) -> None:
        assert self.variant is not None
        variant = self.variant
        sizes = {
            "q_num_heads*head_dim": variant.q_num_heads * variant.head_dim,
            "kv_num_heads*head_dim": variant.kv_num_heads * variant.head_dim,
            "kv_num_heads": variant.kv_num_heads,
            "q_num_heads": variant.q_num_heads,
            "head_dim": variant.head_dim,
        }
        for tensor, found in zip(SPEC.inputs, inputs, strict=False):
            wanted = [sizes.get(name) for name in tensor.shape]
            known = [each.get_constant_value() if each.is_constant() else None for each in found]
            fits = len(known) == len(wanted) and all(
                size in (want, None) or want is None
                for size, want in zip(known, wanted, strict=True)
            )
            if not fits:
                names = ", ".join(tensor.shape)
                raise PluginError(
                    f"{tensor.name} of {SPEC.name} has another shape: ({names})",
                    found=", ".join("?" if size is None else str(size) for size in known),
                    available=[f"{name} = {size}" for name, size in sizes.items()],
                )

    def _same(self, dimensions: Any) -> Any:
        copy = self.registration.trt.DimsExprs(len(dimensions))
        for index in range(len(dimensions)):
            copy[index] = dimensions[index]
        return copy

    # ---- When it is run.

    def set_tactic(self, tactic: int) -> None:
        """There is one."""

    def on_shape_change(self, inputs: Any, outputs: Any) -> None:
        """Grids are computed when they are needed."""

    @_keeping
    def attach_to_context(self, context: Any) -> Any:
        """The one that a context will use. Kernels are loaded here, not in the middle of a run."""
        if not self.building and self.variant is not None:
            self._loaded().prepare(self.variant)
        return self.clone()

    @_keeping
    def enqueue(
        self,
        input_descs: Any,
        output_descs: Any,
        inputs: Any,
        outputs: Any,
        scratch: int,
        stream: int,
    ) -> None:
        """Launch the kernels on ``stream``."""
        assert self.variant is not None
        batch, sequence = input_descs[QUERY].dims[0], input_descs[QUERY].dims[1]
        if not batch or not sequence:
            return
        for output, source in ALIASES.items():
            if outputs[output] != inputs[source]:
                what = f"{_OUTPUTS[output]} is not at the address of {_INPUTS[source]}"
                raise PluginError(what, where=SPEC.name, hint="bind both to one buffer")
        self._loaded().launch(
            self.variant,
            dict(zip(_INPUTS, inputs, strict=False)) | dict(zip(_OUTPUTS, outputs, strict=True)),
            batch=batch,
            sequence=sequence,
            capacity=input_descs[KEY_CACHE].dims[2],
            most_splits=functools.partial(most_splits, self.variant),
            workspace=scratch,
            stream=stream,
        )

    def _loaded(self) -> Kernels:
        if self.registration.kernels is None:
            raise PluginError(
                f"{SPEC.name} was registered without its kernels", hint="register(trt, folder)"
            )
        return self.registration.kernels


@functools.cache
def _plugin_class(trt: Any) -> Any:
    core, build, runtime = trt.IPluginV3OneCore, trt.IPluginV3OneBuildV2, trt.IPluginV3OneRuntime

    class CachedAttention(_Attention, trt.IPluginV3, core, build, runtime):  # type: ignore
        """The plugin, for one TensorRT."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            for interface in (trt.IPluginV3, core, build, runtime):
                interface.__init__(self)
            super().__init__(*arguments, **named)

    return CachedAttention


@functools.cache
def _creator_class(trt: Any) -> Any:
    class CachedAttentionCreator(trt.IPluginCreatorV3One):
        """Makes a plugin for a node that is parsed, or for one in a plan that is opened."""

        def __init__(self, registration: Registration) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_version = SPEC.name, SPEC.version
            self.plugin_namespace, self.field_names = SPEC.namespace, declared(trt)
            self.registration = registration

        @_keeping
        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            given = attributes_of(fields)
            names = [key for key in ("dtype", "cache_dtype", "sinks") if key in given]
            kept = {key: given.pop(key) for key in names}
            building = phase == trt.TensorRTPhase.BUILD
            # Of any type: what is wrong with the attributes is better said now than later.
            likely: dict[str, Any] = {"dtype": "float16", "cache_dtype": "", "sinks": False}
            variant = Variant.from_attributes(given, **(likely | kept))
            make = _plugin_class(trt)
            return make(self.registration, given, variant if kept else None, building=building)

    return CachedAttentionCreator
