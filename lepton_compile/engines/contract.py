"""What an engine's builder takes and gives; every ``engines/<target>/build.py`` has one ``build``.

A builder writes into a folder, all of which becomes part of the artifact; engines that can share
weights are written into the same one, in turn. What a loader has to know beyond the file's name
goes into ``details``, what only people read into ``report``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lepton_compile.progress import Step

if TYPE_CHECKING:  # probes and the processes that builders start import this package too
    import onnx_ir as ir

    from lepton_compile.engines.weights_file import WeightStore
    from lepton_compile.export import CacheLayer
    from lepton_compile.recipe import Recipe

__all__ = ["BuiltEngine", "EngineBuilder", "EngineJob", "Step"]


@dataclass(frozen=True)
class EngineJob:
    """One engine to build.

    Attributes:
        model: lowered for the target; the builder may consume it.
        folder: exists; it holds the files of the engines before it where ``stem`` is given.
        recipe: for the options of the target.
        ranges: ``[least, most]`` of ``batch`` and ``sequence``; a decoder's ``sequence`` is its
            whole cache, past and new.
        caches: KV cache of each layer; empty for models without one.
        step: told about progress.
        stem: of the names of its files, where they share the folder; None where it is its own.
        store: what the engines before it have written there.
        library: kernels of our own that the model may call, in ``folder`` already.
    """

    model: ir.Model
    folder: Path
    recipe: Recipe
    ranges: Mapping[str, Sequence[int]]
    caches: Sequence[CacheLayer] = ()
    step: Step | None = None
    stem: str | None = None
    store: WeightStore | None = None
    library: Path | None = None


@dataclass(frozen=True)
class BuiltEngine:
    """What a builder made.

    Attributes:
        model: the file in the folder that the runtime opens.
        files: names of all that belong to it; empty for everything in the folder, its own.
        encoder: the file that is opened for what is read, of an encoder-decoder.
        requires: pip package -> version, such as ``{"onnxruntime": ">=1.30"}``.
        details: JSON for the engine's entry in the manifest: ``io``, ``cache``, ``profiles`` and so
            on, where the engine differs from the model's public interface.
        report: JSON for ``report.json``: layer table, the builder's own log.
    """

    model: str
    requires: Mapping[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ()
    encoder: str | None = None


class EngineBuilder(Protocol):
    """``build`` of a target."""

    def __call__(self, job: EngineJob) -> BuiltEngine:
        """Raises EngineError: what the runtime's builder refused, in its own words."""
