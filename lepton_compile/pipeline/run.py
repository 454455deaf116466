"""Run passes over a model, in order, and say what each did."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import onnx_ir as ir

from lepton_compile.errors import PassError
from lepton_compile.progress import Step
from lepton_passes.contract import LeptonPass

from .report import PassReport, PipelineReport

__all__ = ["Check", "run"]

NAMED = 4  # nodes that a message names


class Check(Protocol):
    """Compares the graph after a pass with the graph before it; ``check.NumericCheck`` is one."""

    def __call__(self, model: ir.Model, done: LeptonPass) -> float:
        """The error the pass added. Raises PassError when it is more than the pass may add."""


def run(
    model: ir.Model,
    passes: Sequence[LeptonPass],
    *,
    check: Check | None = None,
    progress: Step | None = None,
    refuse: bool = True,
    report: PipelineReport | None = None,
) -> PipelineReport:
    """Apply ``passes`` to ``model`` in place.

    Args:
        check: called after each pass that fired and changes numbers.
        progress: (pass, done, total).
        refuse: a refusal of a pass that must not refuse is an error; else it is only reported.
        report: filled as passes are done, so that it has them where one fails; the same is
            returned.

    Raises:
        PassError: a pass failed, or moved the numbers further than it may.
    """
    report = PipelineReport() if report is None else report
    for index, each in enumerate(passes):
        if progress is not None:
            progress(each.name, index, len(passes))
        before, start = _nodes(model), time.perf_counter()
        _apply(each, model)
        seconds, after = time.perf_counter() - start, _nodes(model)
        sizes = len(before), len(after)
        done = PassReport(
            each.name, each.counts_as, each.fired, tuple(each.refusals), sizes, seconds
        )
        report.passes.append(done)
        if refuse and each.must_not_refuse and each.refusals:
            raise _illegal(each, report.passes)
        if each.fired and not each.runs_on_cpu:
            check = None
        if each.fired and each.changes_numbers and check is not None:
            try:
                added: float | None = check(model, each)
            except PassError as error:
                report.passes[-1] = replace(done, error=error.error)
                error.found = f"{error.found}; {_made(before, after)}"
                raise
            report.passes[-1] = replace(done, error=added)
    if progress is not None:
        progress("passes done", len(passes), len(passes))
    return report


def _apply(each: LeptonPass, model: ir.Model) -> None:
    try:
        each(model)
    except OSError:  # a disk or a checkpoint, not the pass
        raise
    except Exception as error:
        raise PassError(
            f"the pass {each.name} failed",
            found=f"{type(error).__name__}: {error}",
            hint=f"leave it out with passes: {{disable: [{each.name}]}} and report the model",
        ) from error


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


def _nodes(model: ir.Model) -> dict[ir.Node, str]:
    """Every node, with the layer function it stands in."""
    found = dict.fromkeys(model.graph, "")
    for function in model.functions.values():
        found.update(dict.fromkeys(function, f"{function.name}/"))
    return found


def _made(before: Mapping[ir.Node, str], after: Mapping[ir.Node, str]) -> str:
    """The nodes that a pass made, in words."""
    made = [f"{place}{n.name} ({n.op_type})" for n, place in after.items() if n not in before]
    more = f" and {len(made) - NAMED} more" if len(made) > NAMED else ""
    return f"it made {', '.join(made[:NAMED]) or 'no node'}{more}"
