"""How fast an artifact is here, next to the PyTorch model that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lepton_compile.api.origin import origin_of
from lepton_compile.api.refusals import BEGAN, blaming_named_model, engine_failed
from lepton_compile.api.verifying import room_of
from lepton_compile.artifact import read_manifest
from lepton_compile.errors import SourceError
from lepton_compile.export import Source
from lepton_compile.numerics import bench
from lepton_compile.progress import Progress
from lepton_compile.report import add_bench
from lepton_compile.runtime import load

__all__ = ["run_bench"]

RUNNABLE = "`lepton-compile targets` says what this machine can run; LEPTON_DEBUG=1 shows more"
IMPORTED = "the file may take fewer tokens than it says: build it with `shapes: {sequence: 1..N}`"


def run_bench(
    folder: Path,
    *,
    model: str | None,
    eager: bool,
    rounds: int | None,
    threads: int | None,
    trusted: bool,
    progress: Progress,
) -> tuple[dict[str, Any], bool]:
    """Measure; arguments and errors: as ``api.bench``.

    Returns:
        What was measured, and whether the artifact's report has it.
    """
    alone = None if eager else "asked for with --no-eager"
    read_manifest(folder)  # what is no artifact is no engine that fails to open
    progress.stage("resolve", str(folder))
    with engine_failed("no engine of this artifact opens", str(folder), RUNNABLE):
        opened, source, reference = load(folder, threads=threads), None, None
    if eager:
        try:
            source = origin_of(folder, opened.manifest, model, trusted)
            reference = _reference(opened.manifest, source)
        except (ImportError, SourceError) as error:
            if model:
                raise
            alone = str(error).splitlines()[0]
    beside = "the engine alone" if reference is None else "the engine and PyTorch in turn"
    progress.stage("bench", beside)
    imported = (opened.manifest.get("model") or {}).get("model_type") is None
    failed = engine_failed(
        "the engine fails while it is measured", opened.target, IMPORTED if imported else BEGAN
    )
    with blaming_named_model(opened.manifest, model), failed:
        report = bench(
            opened, reference, artifact=folder, source=source, rounds=rounds, progress=progress
        )
    data = report.as_dict() | {"target": opened.target, "eager_left_out": alone}
    return data, add_bench(folder, data)


def _reference(manifest: Mapping[str, Any], source: Source) -> Any:
    """The fp32 torch module. Raises SourceError where it has no room as a whole."""
    from lepton_compile.export.reference import load_reference

    streamed, lacks = room_of(manifest, source)
    if streamed or lacks:
        raise SourceError(lacks or "the fp32 model has no room as a whole")
    return load_reference(source, manifest["task"])
