"""Engines of TensorRT and TensorRT-RTX: whether one fits this machine, and how it is opened."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lepton_compile.runtime.loader_code import checked_bytes
from lepton_compile.runtime.loader_cuda import Cuda
from lepton_compile.runtime.loader_guard import (
    LoaderError,
    UnfitError,
    check_digests,
    failing,
    refuse,
)

__all__ = ["open_tensorrt"]

# Module, and what pip installs it from.
RUNTIMES = {
    "trt": ("tensorrt", "tensorrt-cu13{} --extra-index-url https://pypi.nvidia.com"),
    "trt-rtx": ("tensorrt_rtx", "tensorrt-rtx-cu13{}"),
}


def open_tensorrt(root: Path, manifest: Mapping[str, Any], engine: Mapping[str, Any]) -> Any:
    """The opened engine. Raises UnfitError where this machine cannot run it.

    The order is: packages and device, the manifest's requirements, digests, the runtime's import
    and version, the plugin, the plan.
    """
    module, package = RUNTIMES[engine["target"]]
    install = f"this engine needs {module}: pip install {package.format(_pin(engine))}"
    refuse(not (module in sys.modules or find_spec(module)), install, UnfitError)
    device = Cuda()
    _check_device(device, engine)
    check_digests(root, manifest, {*engine["files"]} - {engine["model"]})
    plan = checked_bytes(root, manifest, engine["model"])
    with failing(f"{module} does not import", UnfitError):
        trt = import_module(module)
    _check_version(trt, engine, install)
    plugin = kernels = None
    if engine.get("plugin"):
        from lepton_compile.runtime.loader_trt_plugin import registered

        plugin = registered(trt, root, manifest, engine)
    if engine["target"] == "trt-rtx":
        from lepton_compile.runtime.loader_rtx_cache import KernelFile

        made_of = manifest["files"][engine["model"]]["sha256"], trt.__version__
        kernels = KernelFile(root, *made_of, device.name, device.driver)
    session = _session(bool(manifest["cache"]), trt, device, engine, plugin)
    try:
        session.open(plan, kernels)
    except LoaderError as error:
        session.close()
        raise UnfitError(str(error)) from error
    except Exception as error:  # of the runtime, which may well say nothing
        session.close()
        why = f"the plan does not open: {type(error).__name__}: {error}{session.said()}"
        raise UnfitError(why) from error
    return session


def _session(decoder: bool, *given: Any) -> Any:
    """What runs the plan, still closed."""
    if decoder:
        from lepton_compile.runtime.loader_trt_decoder import Decoder

        return Decoder(*given)
    if not decoder:
        from lepton_compile.runtime.loader_trt_encoder import Encoder

        return Encoder(*given)
    raise UnfitError("take the artifact's own loader.py, not this")


def _pin(engine: Mapping[str, Any]) -> str:
    """The version of TensorRT that the engine asks for, as pip takes it: ``==1.7.1.116``."""
    wanted = next((v for n, v in engine["requires"].items() if n.startswith("tensorrt")), "")
    return wanted if not wanted or wanted[0] in "<>=!~" else f"=={wanted}"


def _check_version(trt: Any, engine: Mapping[str, Any], install: str) -> None:
    """A plan is read by the version that wrote it, unless it asks for one from a version on."""
    wanted, found = _pin(engine), str(trt.__version__)
    numbers = [_numbers(found), _numbers(wanted)]
    fits = numbers[0] >= numbers[1] if wanted.startswith(">=") else numbers[0] == numbers[1]
    refuse(wanted and not fits, f"{install}, and found {found}", UnfitError)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.strip("<>=!~").split(".") if part.isdecimal()]


def _check_device(device: Cuda, engine: Mapping[str, Any]) -> None:
    """Whether the manifest names this GPU among those that the engine and its plugin are for."""
    here = _numbers(device.capability)
    made = engine.get("compute_capabilities") or ["portable"]
    fits = any(
        text == "portable"
        or (here >= _numbers(text[:-1]) if text[-1:] == "+" else here == _numbers(text))
        for text in made
    )
    gpu = f"{device.name} has compute capability {device.capability}"
    refuse(not fits, f"{gpu}, the engine is for {', '.join(made)}", UnfitError)
    least, found = engine["requires"].get("cuda-bindings", ""), device.bindings
    old = _numbers(found) < _numbers(least)
    refuse(old, f"this engine needs cuda-bindings{least}, found {found}", UnfitError)
    if plugin := engine.get("plugin"):
        kernels = [int("".join(filter(str.isdecimal, a)) or 0) for a in plugin["architectures"]]
        fits = any(k // 10 == here[0] and k % 10 <= here[1] for k in kernels)
        named = ", ".join(f"{k // 10}.{k % 10}" for k in kernels)
        refuse(not fits, f"{gpu}, the plugin {plugin['name']} has kernels for {named}", UnfitError)
