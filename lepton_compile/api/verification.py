"""Open finished engines, compare them with PyTorch and hold them to their gates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.api.demands import Demands
from lepton_compile.api.refusals import engine_failed
from lepton_compile.errors import EngineError
from lepton_compile.export import Source
from lepton_compile.numerics.gates import GateCheck, check_gates
from lepton_compile.numerics.reference import Later
from lepton_compile.numerics.verify import verify
from lepton_compile.numerics.verify_report import VerifyReport
from lepton_compile.progress import NullProgress, Progress
from lepton_compile.scratch import give_back_freed

if TYPE_CHECKING:
    from lepton_compile.runtime import Model

__all__ = ["Verified", "runnable", "verify_engines"]

UNFIT = "no engine that was asked for runs here"
"""How the loader's message begins where an engine is for another machine."""


@dataclass(frozen=True)
class Verified:
    """What verification of one engine found, and the demands it was held to."""

    target: str
    report: VerifyReport
    gates: tuple[GateCheck, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: the report with ``target`` and ``gates``."""
        gates = [check.as_dict() for check in self.gates]
        return {"target": self.target, **self.report.as_dict(), "gates": gates}


def runnable(targets: Iterable[str]) -> dict[str, str]:
    """Target -> why its engine does not run on this machine; empty where it does."""
    from lepton_compile.engines.probe import probe

    states = {target: probe(target) for target in targets}
    return {
        name: "" if state.runs else state.reason or "it does not run here"
        for name, state in states.items()
    }


def verify_engines(
    path: Path,
    targets: Sequence[str],
    source: Source,
    demands: Demands,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    unfit: dict[str, str] | None = None,
    streamed: bool = False,
) -> list[Verified]:
    """Compare engines of the artifact at ``path`` with the fp32 model of ``source``.

    Nothing is enforced: the checks are in what is returned, each with its target where there are
    several engines.

    Args:
        unfit: takes the engines that are intact and do not run here, with the reason, so that the
            others are verified all the same; left out, they are errors.
        streamed: hold a layer of the fp32 model at a time.

    Raises:
        SourceError: the fp32 model cannot be loaded.
        UsageError: there is nothing in the text to compare on.
        EngineError: an engine does not open, or fails on what it is fed.
    """
    from lepton_compile.export.reference import load_reference

    watcher = progress or NullProgress()
    found = []

    def loaded() -> Any:
        watcher.step("loading the fp32 model", 0, 1)
        give_back_freed()
        return load_reference(source, task, streamed=streamed)

    task, reference = "", Later(loaded, streamed=streamed)
    for target in targets:
        opened = _open(path, target, threads, unfit)
        if opened is None:
            continue
        with opened as model:
            task = model.task
            with engine_failed("the engine fails while it is compared with PyTorch", target):
                report = verify(
                    model,
                    reference,
                    source.tokenizer(),
                    model.task,
                    precision=str(model.engine["precision"]),
                    text=demands.text,
                    tokens=demands.tokens,
                    progress=watcher,
                    release=model.close,
                    reopened=partial(_opened, path, target, threads),
                )
        checks = check_gates(report, demands.gates[target])
        label = target if len(targets) > 1 else ""
        found.append(Verified(target, report, tuple(replace(c, target=label) for c in checks)))
    return found


def _opened(path: Path, target: str, threads: int | None) -> Model:
    from lepton_compile.runtime import load

    with engine_failed("the engine does not open", target):
        return load(path, threads=threads, target=target)


def _open(
    path: Path, target: str, threads: int | None, unfit: dict[str, str] | None
) -> Model | None:
    try:
        return _opened(path, target, threads)
    except EngineError as error:
        said = error.found or ""
        if unfit is None or not said.startswith(UNFIT):
            raise
        unfit[target] = said.removeprefix(UNFIT).strip(". ")
        return None
