"""Kernels of our own in an engine for onnxruntime: whether it gets them, and their library.

The library is compiled by this machine's compiler, in the background while the model is captured,
and kept between builds by its content.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from lepton_compile.engines.ort_cpu.nodes import all_nodes
from lepton_compile.engines.ort_cpu.pieces import pieces
from lepton_compile.errors import EngineError
from lepton_compile.recipe import Recipe
from lepton_plugins.spec import PluginError

if TYPE_CHECKING:
    from lepton_plugins.toolchain.cxx import Compilers

__all__ = ["Kernels", "entry", "kernels_for", "uses_library"]

TARGET = "ort-cpu"


@dataclass(frozen=True)
class Kernels:
    """What was decided for the ort-cpu engine of a recipe.

    Attributes:
        native: it gets our kernels.
        remark: what a report has to say of it; empty where there is nothing to say.
    """

    native: bool
    remark: str = ""

    def start(self) -> None:
        """Begin to compile the library, in the background."""
        if self.native:
            _ = self._library

    def place(self, folder: Path) -> Path | None:
        """Write the library into ``folder``; ``None`` where the engine goes without.

        Raises:
            EngineError: the compiler declines.
        """
        from lepton_plugins.native import LIBRARY

        if not self.native:
            return None
        try:
            data = self._library.result()
        except PluginError as error:
            raise EngineError(
                error.message,
                where=error.where or "kernels",
                found=error.found,
                available=error.available,
                hint=error.hint or "kernels: builtin builds without",
            ) from error
        path = folder / LIBRARY
        path.write_bytes(data)
        return path

    def abandon(self) -> None:
        """Wait no more for the library: the process could not end before it is compiled."""
        if "_library" in self.__dict__:
            self._compilers.stop()

    @cached_property
    def _compilers(self) -> Compilers:
        from lepton_plugins.toolchain.cxx import Compilers

        return Compilers()

    @cached_property
    def _library(self) -> Future[bytes]:
        from lepton_plugins.native import build_library
        from lepton_plugins.toolchain.store import cache_folder

        pool = ThreadPoolExecutor(1, thread_name_prefix="kernels")
        future = pool.submit(build_library, cache_folder(), (), self._compilers)
        pool.shutdown(wait=False)
        return future


def kernels_for(recipe: Recipe, *, needed: bool = False) -> Kernels:
    """Decide, without compiling anything.

    Args:
        needed: the model has attention that onnxruntime has no kernel for.

    Raises:
        EngineError: the recipe or the model demands our kernels, and this machine cannot make
            them, or the recipe declines them.
    """
    own = recipe.for_target(TARGET)
    if TARGET not in recipe.target:
        return Kernels(False)
    if own.kernels == "builtin" and needed:
        raise EngineError(
            "only our own kernels compute this model's attention",
            where=recipe.place("kernels"),
            found="builtin",
            available=["auto", "native"],
        )
    if own.kernels == "builtin" or not (needed or own.quantize.may_have_integers):
        return Kernels(False)
    from lepton_plugins.native import why_not

    reason = why_not()
    if reason is None:
        return Kernels(True)
    if own.kernels == "native" or needed:
        raise EngineError(
            "our own CPU kernels cannot be made here",
            where="kernels",
            found=reason,
            available=[] if needed else ["auto", "builtin"],
        )
    return Kernels(False, f"ort-cpu has no kernels of our own, which are faster: {reason}")


def uses_library(model: ir.Model) -> bool:
    """Whether the lowered model has an op of the library."""
    from lepton_plugins.spec import CPU_DOMAIN

    return any(node.domain == CPU_DOMAIN for node in all_nodes(model))


def entry(library: Path, model: ir.Model) -> dict[str, Any]:
    """``kernels`` of the engine in the manifest: the library, where it runs, and in what pieces the
    lowered model is given its work."""
    from lepton_plugins.native import FEATURES, MACHINE, SYSTEM
    from lepton_plugins.toolchain.cxx import find_compiler

    compiler = find_compiler()
    return {
        "library": library.name,
        "system": SYSTEM,
        "machine": MACHINE,
        "features": list(FEATURES),
        "compiler": compiler.version if compiler is not None else "",
        **pieces(model),
    }
