"""The search: estimate what each weight costs in each format, choose, measure, correct."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.progress import Step
from lepton_compile.scratch import Shelved

from .choice import Ladder, Option, search
from .decision import Decision, kinds_of
from .objective import Objective
from .rounder import Rounder
from .sensitivity import (
    Feeds,
    Measured,
    Run,
    estimates,
    squared_derivatives,
    table_losses,
)
from .units import Unit, units_of

__all__ = ["decide"]

Fixed = Callable[[str, bool], bool]


def decide(
    model: ir.Model,
    module: Any,
    run: Run,
    objective: Objective,
    feeds: Feeds,
    energies: Mapping[str, np.ndarray],
    budget: float,
    *,
    fixed: Fixed = lambda _name, _table: False,
    step: Step = lambda _what, _done, _total: None,
) -> Decision:
    """Bits of each weight of ``model``, the fewest bytes within ``budget``.

    Args:
        model: the neutral graph, before any pass; not changed.
        module: the fp32 model of PyTorch; its weights are rounded and put back.
        run: outputs of ``module`` for one text.
        objective: the loss.
        feeds: texts of the calibration sample.
        energies: mean squares of what linear layers read.
        budget: mean loss of a row, at most.
        fixed: whether the recipe itself says how a parameter is stored; it is left alone.
        step: (what, done, total).
    """
    rounder = Rounder(module, energies)
    units = [unit for unit in units_of(model) if _free(unit, rounder, fixed)]
    wanted = {p.name: rounder.parameter(p) for u in units if not u.table for p in u.parts}
    squares = squared_derivatives(module, run, objective, feeds, wanted, step)
    measured = Measured(run, objective, feeds, step)
    ladders = _ladders(units, rounder, squares, measured, step)

    def measure(picks: tuple[int, ...]) -> float:
        rounder.apply(units, _bits(units, picks))
        return measured.loss()

    found = search(ladders, budget, measure)
    rounder.apply(units, [None] * len(units))
    bits = _bits(units, found.picks)
    chosen = [each.options[pick] for each, pick in zip(ladders, found.picks, strict=True)]
    return Decision(
        quantize=_mapping(units, bits),
        kinds=kinds_of(units, bits, [option.loss for option in chosen]),
        measure=objective.words,
        budget=budget,
        estimated=found.estimated,
        measured=found.measured,
        tries=found.tries,
        bytes=sum(option.bytes for option in chosen),
    )


def _free(unit: Unit, rounder: Rounder, fixed: Fixed) -> bool:
    """Whether all of a unit may be chosen for, and can be tried in the model of PyTorch."""
    return all(
        rounder.parameter(part) is not None and not fixed(part.name, part.table)
        for part in unit.parts
    )


def _ladders(
    units: Sequence[Unit],
    rounder: Rounder,
    squares: Mapping[str, Shelved],
    measured: Measured,
    step: Step,
) -> list[Ladder]:
    ladders = []
    for index, unit in enumerate(units):
        step("estimating", index, len(units))
        if unit.table:
            losses = table_losses(unit, rounder, measured.loss)
        else:
            losses = estimates(unit, rounder, squares, measured.rows)
        options = tuple(Option(bits, unit.bytes(bits), losses[bits]) for bits in unit.formats)
        ladders.append(Ladder(unit.name, options))
    return ladders


def _bits(units: Sequence[Unit], picks: Sequence[int]) -> list[int | None]:
    return [unit.formats[pick] for unit, pick in zip(units, picks, strict=True)]


def _mapping(units: Sequence[Unit], bits: Sequence[int | None]) -> dict[str, Any]:
    """8 bits with an exception for each weight that has others."""
    rules = [
        {"match": part.name, "bits": "none" if chosen is None else chosen}
        for unit, chosen in zip(units, bits, strict=True)
        if chosen != 8
        for part in unit.parts
    ]
    return {"algorithm": "weighted", "bits": 8, "rules": rules}
