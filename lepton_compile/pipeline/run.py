"""Run passes over a model, in order, and say what each did."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import onnx_ir as ir

from lepton_compile.errors import PassError
from lepton_passes.contract import LeptonPass

from .report import PassReport, PipelineReport

__all__ = ["Check", "run"]


class Check(Protocol):
    """Compares the graph after a pass with the graph before it; ``check.NumericCheck`` is one."""

    def __call__(self, model: ir.Model, done: LeptonPass) -> float:
        """The error the pass added. Raises PassError when it is more than the pass may add."""


def run(
    model: ir.Model,
    passes: Sequence[LeptonPass],
    *,
    check: Check | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    refuse: bool = True,
) -> PipelineReport:
    """Apply ``passes`` to ``model`` in place.

    Args:
        check: called after each pass that fired and changes numbers.
        progress: (pass, done, total).
        refuse: a refusal of a pass that must not refuse is an error; else it is only reported.

    Raises:
        PassError: a pass failed, or moved the numbers further than it may.
    """
    report = PipelineReport()
    for index, each in enumerate(passes):
        if progress is not None:
            progress(each.name, index, len(passes))
        before, start = _size(model), time.perf_counter()
        try:
            each(model)
        except Exception as error:
            raise PassError(
                f"the pass {each.name} failed",
                found=f"{type(error).__name__}: {error}",
                hint=f"leave it out with passes: {{disable: [{each.name}]}} and report the model",
            ) from error
        seconds = time.perf_counter() - start
        if refuse and each.must_not_refuse and each.refusals:
            raise _illegal(each, report.passes)
        if each.fired and not each.runs_on_cpu:
            check = None
        measured = each.fired and each.changes_numbers and check is not None
        error_added = check(model, each) if measured and check is not None else None
        report.passes.append(
            PassReport(
                each.name,
                each.counts_as,
                each.fired,
                tuple(each.refusals),
                (before, _size(model)),
                seconds,
                error_added,
            )
        )
    if progress is not None:
        progress("passes done", len(passes), len(passes))
    return report


def _illegal(done: LeptonPass, before: Sequence[PassReport]) -> PassError:
    """What is wrong with the graph, and what the lowering in front of it declined, and why."""
    reasons = sorted({f"{r.node}: {r.reason}" for r in done.refusals})
    lowering = [r for p in before if p.name.startswith("lower-") for r in p.refusals]
    declined = "; ".join(dict.fromkeys(f"{r.pass_name} declined: {r.reason}" for r in lowering))
    more = f" (and {len(reasons) - 8} more)" if len(reasons) > 8 else ""
    return PassError(
        f"the graph does not pass {done.name}",
        where=done.refusals[0].node,
        found="; ".join(reasons[:8]) + more,
        hint=declined or "leave the target out, or report the model",
    )


def _size(model: ir.Model) -> int:
    return len(model.graph) + sum(len(function) for function in model.functions.values())
