"""Builder configuration from an order."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.engines.tensorrt.child.events import Failure
from lepton_compile.engines.tensorrt.child.observers import spoken
from lepton_compile.engines.tensorrt.order import Order, Profile

if TYPE_CHECKING:
    import tensorrt as trt
else:
    from lepton_compile.engines.tensorrt.child.library import trt

__all__ = ["configure", "read_timing_cache", "write_timing_cache"]

_DIGEST = 32  # bytes of SHA-256 in front of a timing cache


def configure(
    builder: trt.Builder, network: trt.INetworkDefinition, order: Order
) -> trt.IBuilderConfig:
    """The configuration an order asks for.

    Raises:
        Failure: a profile does not fit the network, a GPU is not known, or the timing cache on
            disk is damaged.
    """
    config = builder.create_builder_config()
    for profile in order.profiles:
        if config.add_optimization_profile(_profile(builder, network, profile)) < 0:
            raise Failure(
                f"the library refuses the profile {profile.name}",
                where="shapes",
                found="\n".join(_errors(builder.error_recorder)),
            )
    if order.capabilities:
        _name_capabilities(config, order.capabilities)
    if order.hardware != "NONE":
        level = getattr(trt.HardwareCompatibilityLevel, order.hardware)
        config.hardware_compatibility_level = level
    if order.plugins or order.baked is not None:
        config.set_preview_feature(trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03, True)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if order.timing_cache is not None:
        _use_timing_cache(config, Path(order.timing_cache))
    return config


def read_timing_cache(path: Path) -> bytes:
    """What ``write_timing_cache`` wrote; empty where there is no file that can be read.

    Raises:
        Failure: the file is damaged. It would be parsed by native code that trusts it.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    digest, blob = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(blob).digest() != digest:
        raise Failure(
            "the timing cache is damaged",
            where=str(path),
            found=f"{len(data)} bytes that do not match their SHA-256",
            hint=f"delete it, it will be made anew: rm '{path}'",
        )
    return blob


def write_timing_cache(config: trt.IBuilderConfig, path: Path) -> OSError | None:
    """Keep what this build measured, for the next; in place of the file at once.

    Returns:
        Why it could not be kept: a plan that is finished is not given up for that.
    """
    blob = bytes(memoryview(config.get_timing_cache().serialize()))
    # A name of its own: builds beside each other keep the same file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(hashlib.sha256(blob).digest() + blob)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        return error
    return None


def _use_timing_cache(config: trt.IBuilderConfig, path: Path) -> None:
    cache = config.create_timing_cache(read_timing_cache(path))
    # False: one that was made by another version or GPU is refused, and a new one begins.
    if not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _name_capabilities(config: Any, capabilities: list[str]) -> None:
    """TensorRT-RTX only, hence Any: the other one builds for the GPU that it finds."""
    library: Any = trt
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        name = f"SM{capability.replace('.', '')}"
        known = library.ComputeCapability.__members__
        if name not in known or not config.set_compute_capability(known[name], index):
            raise Failure(
                f"this version builds no engine for compute capability {capability}",
                where="compute_capabilities",
                found=", ".join(capabilities),
                available=sorted(each for each in known if each.startswith("SM")),
            )


def _profile(
    builder: trt.Builder, network: trt.INetworkDefinition, asked: Profile
) -> trt.IOptimizationProfile:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        name = tensor.name
        if tensor.is_shape_tensor:
            _values(profile, tensor, asked)
        if -1 not in list(tensor.shape):
            continue
        if name not in asked.max:
            raise Failure(
                f"the profile {asked.name} says nothing about the input {name}",
                where=f"shapes ({asked.name})",
                available=sorted(asked.max),
            )
        _attempt(name, asked, profile.set_shape, asked.min[name], asked.opt[name], asked.max[name])
    return profile


def _values(profile: trt.IOptimizationProfile, tensor: trt.ITensor, asked: Profile) -> None:
    name = tensor.name
    if name not in asked.values:
        raise Failure(
            f"shapes are computed from the values of {name}, whose range is not known",
            where=f"shapes ({asked.name})",
            available=sorted(asked.values),
        )
    count = math.prod(tensor.shape)
    low, usual, high = ([value] * count for value in asked.values[name])
    _attempt(name, asked, profile.set_shape_input, low, usual, high)


def _errors(recorder: trt.IErrorRecorder) -> list[str]:
    return spoken(recorder.get_error_desc(index) for index in range(recorder.num_errors()))


def _attempt(name: str, asked: Profile, setter: Any, *bounds: list[int]) -> None:
    try:
        setter(name, *bounds)
    except (RuntimeError, ValueError) as error:
        raise Failure(
            f"the library refuses the range of {name} in the profile {asked.name}",
            where="shapes",
            found=f"{' .. '.join(map(str, bounds))}: {error}",
        ) from error
