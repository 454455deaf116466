"""One kernel, from Triton source to PTX and cubin for one architecture, without a GPU."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.ptx import entry_of, plain_target, tidy
from lepton_plugins.toolchain.ptxas import Assembly, assemble

__all__ = ["Compiled", "Source", "compile_source"]

# PTX 8.7 is the first that knows compute capability 12.0; every driver since CUDA 12.8 reads it.
_PTX_VERSION = 87


@dataclass(frozen=True)
class Source:
    """A Triton kernel and everything it is compiled for.

    Attributes:
        function: the ``triton.jit`` function.
        parameters: Triton's type of each run-time argument, in order.
        constants: the compile-time arguments.
        aligned: pointers that are multiples of 16 bytes.
    """

    function: Any
    parameters: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: Sequence[str]
    num_warps: int
    num_stages: int


@dataclass(frozen=True)
class Compiled:
    """What a launcher needs, and what a reader wants to know.

    ``target`` ends in ``a`` where the code runs on that architecture only. ``shared`` bytes are
    asked for at launch; ``spill_bytes`` counts stores and loads.
    """

    entry: str
    architecture: int
    target: str
    parameters: tuple[tuple[str, str], ...]
    num_warps: int
    shared: int
    registers: int
    spill_bytes: int
    ptx: str
    cubin: bytes


def compile_source(source: Source, architecture: int, shared_limit: int) -> Compiled:
    """Compile ``source`` for compute capability ``architecture`` (90 for 9.0).

    Raises:
        PluginError: Triton or ptxas decline, or a block would need more than ``shared_limit`` bytes
            of shared memory.
    """
    name = source.function.__name__
    where = f"{name}, compute capability {architecture / 10:.1f}"
    kernel = _to_ptx(source, architecture, where)
    shared = int(kernel.metadata.shared)
    if shared > shared_limit:
        raise PluginError(
            "a block needs more shared memory than there is",
            where=where,
            found=f"{shared} bytes",
            available=(f"{shared_limit} bytes",),
            hint="smaller tiles or fewer stages, in tiles.py",
        )
    made = _assemble(tidy(kernel.asm["ptx"], len(source.parameters)), name)
    return Compiled(
        entry=entry_of(made.ptx)[0],
        architecture=architecture,
        target=made.target,
        parameters=tuple(source.parameters.items()),
        num_warps=int(kernel.metadata.num_warps),
        shared=shared,
        registers=made.registers,
        spill_bytes=made.spill_bytes,
        ptx=made.ptx,
        cubin=made.cubin,
    )


def _assemble(ptx: str, name: str) -> Assembly:
    """For the plain architecture if that will do, as its code also runs on later devices."""
    plain = plain_target(ptx)
    if plain != ptx:
        try:
            return assemble(plain, name)
        except PluginError:
            pass  # it uses instructions of this architecture alone
    return assemble(ptx, name)


def _to_ptx(source: Source, architecture: int, where: str) -> Any:
    try:
        triton: Any = import_module("triton")
        backend: Any = import_module("triton.backends.compiler")
    except ImportError as error:
        hint = "pip install 'lepton-compile[plugins]'"
        raise PluginError("kernels are compiled by triton", where=where, hint=hint) from error
    names = list(source.function.arg_names)
    signature = {name: source.parameters.get(name, "constexpr") for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in source.aligned}
    options = {
        "num_warps": source.num_warps,
        "num_stages": source.num_stages,
        "enable_fp_fusion": True,
        "ptx_version": _PTX_VERSION,
    }
    with _no_trace_of_this_machine(), _no_machine_code(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return triton.compile(
                triton.compiler.ASTSource(
                    source.function, signature, dict(source.constants), aligned
                ),
                target=backend.GPUTarget("cuda", architecture, 32),
                options=options,
            )
        except Exception as error:  # Triton's errors have no base class of their own
            text = f"{type(error).__name__}: {error}"
            raise PluginError("triton declines", where=where, found=text[-2000:]) from error


@contextmanager
def _no_trace_of_this_machine() -> Iterator[None]:
    """No source lines in the code, and no cache but a folder that goes away."""
    knobs: Any = import_module("triton").knobs
    with (
        tempfile.TemporaryDirectory() as folder,
        knobs.compilation.scope(),
        knobs.cache.scope(),
    ):
        knobs.compilation.disable_line_info = True
        knobs.cache.dir = folder
        yield


@contextmanager
def _no_machine_code() -> Iterator[None]:
    """PTX alone: Triton would assemble it as it is, and what counts is assembled after ``tidy``."""

    def without(*stages: Any) -> tuple[str, str]:
        if stages:  # else Triton asks what to add to the key of its cache
            stages[1]["cubin"] = lambda ptx, metadata: b""
        return "", ""

    runtime: Any = import_module("triton").knobs.runtime
    with runtime.scope():
        runtime.add_stages_inspection_hook = without
        yield
