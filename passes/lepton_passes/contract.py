"""What a pass is: an ``onnx_ir`` pass that counts what it did and says what it declined.

A pass works on one body at a time (the main graph, or the function of a layer), so its cost does
not grow with depth, while ``fired`` counts layers: a fusion in a function that is called 18 times
counts 18. A match that is nearly right is declined with a :class:`Refusal`, never in silence.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from lepton_passes.body import Body, bodies, sweep

__all__ = ["CHOOSING", "CLOSE", "ROUNDING", "SAME", "LeptonPass", "Refusal", "Tolerance"]


@dataclass(frozen=True)
class Refusal:
    """One match that a pass declined.

    Attributes:
        pass_name: the pass, as recipes name it.
        node: the node at which the match stopped; inside a layer, prefixed by its function.
        reason: one clause, lower case, without the node's name.
        layers: names of the layers that share the node; empty in the main graph.
    """

    pass_name: str
    node: str
    reason: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tolerance:
    """How far the outputs of the graph may move in one pass.

    Attributes:
        error: largest absolute difference, as a fraction of the range or, where that is larger,
            of the largest number of the output before.
        cosine: least cosine between the outputs before and after.
    """

    error: float
    cosine: float


SAME = Tolerance(error=1e-6, cosine=0.999999)
"""The same arithmetic in the same order."""

CLOSE = Tolerance(error=5e-4, cosine=0.9999)
"""The same mathematics in fp32, in another order."""

CHOOSING = Tolerance(error=0.5, cosine=0.98)
"""Of a mixture of experts, where something is rounded: a token whose scores lie close together
takes another expert, and moves by a whole one."""

ROUNDING: Mapping[ir.DataType, Tolerance] = {
    ir.DataType.FLOAT16: Tolerance(error=0.02, cosine=0.9995),
    ir.DataType.BFLOAT16: Tolerance(error=0.1, cosine=0.995),
}
"""The same mathematics, each result rounded to a type of half precision."""


class LeptonPass(ir.passes.InPlacePass):
    """Base of every pass. A subclass names itself and implements :meth:`rewrite`.

    Class attributes:
        name: name in recipes and reports; the file has the same stem.
        summary: one line for ``lepton-compile passes``.
        changes_numbers: outputs may move, within ``tolerances``.
        tolerances: allowed movement by the narrowest weight in the graph: fp32, int8 or int4; an
            instance may have its own.
        counts_as: name of the thing in ``expect`` of a recipe, such as ``attention``.
        must_not_refuse: a refusal fails the build.
        runs_on_cpu: the graph after the pass still runs on plain onnxruntime; where it does not,
            the per-pass check ends.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    changes_numbers: ClassVar[bool] = False
    tolerances: Mapping[str, Tolerance] = {"fp32": CLOSE, "int8": CLOSE, "int4": CLOSE}
    counts_as: ClassVar[str | None] = None
    must_not_refuse: ClassVar[bool] = False
    runs_on_cpu: ClassVar[bool] = True

    def __init__(self) -> None:
        self.fired = 0
        self.refusals: list[Refusal] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self.fired = 0
        self.refusals = []
        for body in bodies(model):
            self.rewrite(body)
        removed = sweep(model)
        return ir.passes.PassResult(model, modified=bool(self.fired or removed))

    @abc.abstractmethod
    def rewrite(self, body: Body) -> None:
        """Apply the pass to one body, calling :meth:`fire` and :meth:`refuse` on the way."""

    def fire(self, body: Body, times: int = 1) -> None:
        """Count a rewrite, once for each layer that shares the body."""
        self.fired += times * body.times

    def refuse(self, body: Body, node: ir.Node, reason: str) -> None:
        """Record why ``node`` was left as it is."""
        label = f"{node.name or node.outputs[0].name} ({node.op_type})"
        where = f"{body.name}/{label}" if body.name else label
        layers: Sequence[str] = [call.name or "" for call in body.calls]
        self.refusals.append(Refusal(self.name, where, reason, tuple(layers)))
