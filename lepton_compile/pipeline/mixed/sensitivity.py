"""What rounding each weight costs, estimated from one pass over a text.

A change ``d`` of the weights costs, for small changes, ``d F d / 2``, with the Fisher information
``F`` of the outputs. Errors of rounding are as good as independent of each other, so the diagonal
is enough: ``sum E[g^2] d^2 / 2``, with ``g`` the derivatives of a random scalar of the outputs
(``Objective.differentiate``). The diagonal Fisher information as what a weight is worth in bits is
that of SqueezeLLM (Kim et al., arXiv:2306.07629); the actual ``d^2`` of each format is what HAWQ-V2
(Dong et al., arXiv:1911.03852) multiplies traces of Hessians with.

A table is as large as all layers together and would need a derivative of its own size, so it is
rounded for real and measured. Derivatives of layers are in memory one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lepton_compile.progress import Step
from lepton_compile.scratch import Shelf, Shelved

from .objective import Objective
from .rounder import Rounder, blocks_of
from .units import Part, Unit

__all__ = ["Feeds", "Measured", "Run", "estimates", "squared_derivatives", "table_losses"]

Feeds = Sequence[Mapping[str, np.ndarray]]
Run = Callable[[Mapping[str, np.ndarray]], Any]

_SEED = 0
_SHARE = 8
"""One block of rows in so many tells how much worse a table gets with fewer bits."""


class Measured:
    """The loss of a model against what it was when this was made.

    Args:
        run: outputs of the model for one text; the model is now as it is in fp32.
        feeds: one text each.
    """

    def __init__(self, run: Run, objective: Objective, feeds: Feeds, step: Step) -> None:
        self._run, self._objective, self._feeds, self._step = run, objective, feeds, step
        self._kept = [objective.keep(outputs) for outputs in self._runs("reading the text")]
        self.rows = sum(map(objective.rows, self._kept))

    def loss(self) -> float:
        """Mean over the rows of all texts."""
        pairs = zip(self._kept, self._runs("measuring a choice"), strict=True)
        return sum(self._objective.distance(*pair) for pair in pairs) / max(1, self.rows)

    def _runs(self, what: str) -> Iterator[Any]:
        import torch

        for index, feed in enumerate(self._feeds):
            self._step(what, index, len(self._feeds))
            with torch.inference_mode():
                yield self._run(feed)


def squared_derivatives(
    module: Any,
    run: Run,
    objective: Objective,
    feeds: Feeds,
    wanted: Mapping[str, Any],
    step: Step,
) -> dict[str, Shelved]:
    """``g^2`` of each parameter of ``wanted``, summed over the texts: fp32, of its shape."""
    import torch

    shelf = Shelf()
    sums = {name: shelf.zeros(parameter.shape, np.float32) for name, parameter in wanted.items()}
    was = {parameter: parameter.requires_grad for parameter in module.parameters()}
    hooks = []
    for parameter in was:
        parameter.requires_grad_(False)
    for name, parameter in wanted.items():
        parameter.requires_grad_(True)

        def taken(changed: Any, into: Shelved = sums[name]) -> None:
            until_now = torch.from_numpy(into.read())
            into.write(until_now.addcmul_(changed.grad, changed.grad).numpy())
            changed.grad = None

        hooks.append(parameter.register_post_accumulate_grad_hook(taken))
    generator = torch.Generator().manual_seed(_SEED)
    try:
        for index, feed in enumerate(feeds):
            step("differentiating", index, len(feeds))
            objective.differentiate(run(feed), generator)
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, before in was.items():
            parameter.requires_grad_(before)
    return sums


def estimates(
    unit: Unit, rounder: Rounder, squares: Mapping[str, Shelved], rows: int
) -> dict[int | None, float]:
    """Loss of a unit of linear layers in each of its formats."""
    found: dict[int | None, float] = {None: 0.0}
    for bits in unit.formats[1:]:
        lost = (_weighed(p, bits, rounder.energy(p), squares[p.name]) for p in unit.parts)
        found[bits] = sum(lost) / (2 * rows)
    return found


def table_losses(
    unit: Unit, rounder: Rounder, measure: Callable[[], float]
) -> dict[int | None, float]:
    """Loss of a table in each of its formats: measured in the smallest, the rest in proportion."""
    smallest = unit.formats[-1]
    rounder.apply([unit], [smallest])
    lost = measure()
    rounder.apply([unit], [None])
    errors = {b: sum(_error(p, b, rounder.energy(p)) for p in unit.parts) for b in unit.formats[1:]}
    least = errors[smallest] or 1.0
    return {None: 0.0, **{bits: lost * error / least for bits, error in errors.items()}}


def _weighed(part: Part, bits: int | None, energy: np.ndarray | None, squares: Shelved) -> float:
    total = 0.0
    for start, w in blocks_of(part):
        error = np.square(part.rounded(w, bits, energy) - w)
        total += float(np.vdot(error, squares.read(start, start + len(w))))
    return total


def _error(part: Part, bits: int | None, energy: np.ndarray | None) -> float:
    """Squared error of some of the rows, columns weighed as the rounding weighs them."""
    weight = np.ones(part.columns) if energy is None else energy
    blocks = blocks_of(part, _SHARE)
    return sum(
        float((np.square(part.rounded(w, bits, energy) - w).sum(axis=0) * weight).sum())
        for _, w in blocks
    )
