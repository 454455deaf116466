"""How fast an artifact is, next to PyTorch eager in the same run, and on which machine.

Shared machines are noisy: engine and eager run in turn, and the ratios are what to quote.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.numerics.bench.case import Case
from lepton_compile.numerics.bench.decoder import bench_decoder
from lepton_compile.numerics.bench.encoder import bench_encoder
from lepton_compile.numerics.bench.fresh import FreshStart, fresh_eager, fresh_start
from lepton_compile.numerics.bench.images import bench_images
from lepton_compile.numerics.bench.machine import describe
from lepton_compile.numerics.bench.pair import bench_pair
from lepton_compile.numerics.bench.pictured import bench_pictured
from lepton_compile.numerics.bench.timing import Timing
from lepton_compile.numerics.engine import generates
from lepton_compile.progress import NullProgress, Progress

if TYPE_CHECKING:
    from lepton_compile.export import Source

__all__ = ["BenchReport", "Case", "FreshStart", "Timing", "bench"]

# By task; all others are encoders.
MEASURES = {
    "text-generation": bench_decoder,
    "text2text-generation": bench_pair,
    "automatic-speech-recognition": bench_pair,
    "image-classification": bench_images,
    "image-feature-extraction": bench_images,
    "image-text-to-text": bench_pictured,
}


@dataclass(frozen=True)
class BenchReport:
    """Figures of one artifact on one machine.

    Attributes:
        task: task of the model.
        cases: one per shape or phase.
        start: first start in a process of its own; None when it was left out.
        eager_start: that of PyTorch eager, in a process of its own too.
        bytes_on_disk: size of the artifact.
        machine: where this was measured, and with which versions.
    """

    task: str
    cases: tuple[Case, ...]
    start: FreshStart | None
    bytes_on_disk: int
    machine: dict[str, object]
    eager_start: FreshStart | None = None

    def as_dict(self) -> dict[str, object]:
        """The figures as JSON-ready data."""
        return {
            "task": self.task,
            "cases": [case.as_dict() for case in self.cases],
            "start": self.start.as_dict() if self.start else None,
            "eager_start": self.eager_start.as_dict() if self.eager_start else None,
            "bytes_on_disk": self.bytes_on_disk,
            "machine": self.machine,
        }


def bench(
    model: Any,
    reference: Any = None,
    *,
    artifact: Path | None = None,
    source: Source | None = None,
    rounds: int | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Measures an opened artifact.

    Args:
        model: ``lepton_compile.runtime.Model``.
        reference: the fp32 torch module to run beside it; None leaves PyTorch out. It gets as many
            threads as the engine.
        artifact: folder whose size, load time and peak memory are measured; None leaves these out.
        source: of the reference, whose load time and peak memory are measured beside those of the
            artifact; None leaves these out.
        rounds: rounds per case instead of those that fit into a few seconds.
        progress: told after each case.
    """
    watcher = progress or NullProgress()
    threads = int(getattr(model, "threads", 0)) or None
    generate = generates(model.manifest)
    start = fresh_start(artifact, threads, generate=generate) if artifact else None
    task = model.manifest["task"]
    eager_start = fresh_eager(source, task, threads) if source and reference is not None else None
    if reference is not None and threads:
        import torch

        torch.set_num_threads(threads)
    measure = MEASURES.get(task, bench_encoder)
    cases = measure(model, reference, watcher, rounds=rounds)
    return BenchReport(
        task=task,
        cases=tuple(cases),
        start=start,
        bytes_on_disk=_size(artifact) if artifact else 0,
        machine=describe(threads),
        eager_start=eager_start,
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
