"""Move outliers from what int8 linear layers read into their weights (SmoothQuant).

    Before   MatMul(x, Transpose(W)) of every layer that reads x
    After    MatMul(Mul(x, 1 / s), Transpose(W * s)), s one number for each channel of x

A channel that is 20 times larger than the others takes 20 times the room of one scale for all of
x, while a row of W has a scale of its own. ``s_j = max|x_j|^a / max|W_j|^(1 - a)`` shares the
trouble between them: Xiao et al., SmoothQuant, arXiv:2211.10438, equation 4. Two things differ.
The exponent a, one for all layers there, is that of ``EXPONENTS`` whose expected squared error in
the product is least. And s is rounded to a power of two, so that both products are exact in every
floating-point type, and the same on machines that add up in another order.

Place: behind ``calibrate``, whose ranges it reads and renews, and in front of ``weight-int8``.
Refuses: a channel range nobody saw; readers of one input that are not all for int8; a weight that
something else reads too; an input whose rounding loses less than 2 % as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import SAME, LeptonPass
from lepton_passes.linear import Linear, linears_by_input
from lepton_passes.match import made_by
from lepton_passes.quant.calibration import Calibration, parameters_of
from lepton_passes.quant.ranges import INT8_MOST, InputRange
from lepton_passes.quant.weights import Choose
from lepton_passes.tensors import StreamedTensor, mapped, rows_of

__all__ = ["SmoothInputs"]

EXPONENTS = (0.5, 0.6, 0.7, 0.8, 0.9)
SMALL_LOSS = 0.02
_BLOCK = 4 << 20


class SmoothInputs(LeptonPass):
    """Move outliers from what int8 linear layers read into their weights.

    Args:
        calibration: what the layers read; measured again afterwards.
        choose: format of each parameter; left out, 8 bits for all.
    """

    name = "smooth-inputs"
    summary = "SmoothQuant: outliers of int8 layers' activations into their weights"
    changes_numbers = True
    tolerances = {"fp32": SAME, "int8": SAME, "int4": SAME}  # noqa: RUF012  # ClassVar of the base

    def __init__(
        self, calibration: Calibration | None = None, choose: Choose | None = None
    ) -> None:
        super().__init__()
        self._calibration = calibration if calibration is not None else Calibration()
        self._choose: Choose = choose or (lambda _name, _embedding: (8, None))

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        result = super().call(model)
        if self.fired:
            self._calibration.ranges.update(self._calibration.measure(model))
        return result

    def rewrite(self, body: Body) -> None:
        for x, users in linears_by_input(body).items():
            names = [parameters_of(body, user) for user in users]
            if not any(self._for_int8(name) for of_user in names for name in of_user):
                continue
            reason = self._refuses(users, names)
            if reason is not None:
                self.refuse(body, users[0].node, reason)
            else:
                self._smooth(body, x, users, names)

    def _for_int8(self, name: str) -> bool:
        choice = self._choose(name, False)
        return choice is not None and choice[0] == 8

    def _refuses(self, users: Sequence[Linear], names: Sequence[Sequence[str]]) -> str | None:
        every = [name for of_user in names for name in of_user]
        if not all(user.weight.plain for user in users) or not all(map(self._for_int8, every)):
            return "not all that read its input go to int8"
        if any(len(user.weight.values[0].uses()) > 1 for user in users):
            return "its weight is read by something else too"
        ranges = self._calibration.ranges
        if any(name not in ranges for name in every):
            return "its input was not calibrated"
        seen = [ranges[name] for name in every]
        lost = max(each.int8_loss() for each in seen)
        if lost < SMALL_LOSS and all(each.rows for each in seen):
            return f"rounding its input loses {lost:.1%}, which is little"
        return None

    def _smooth(
        self, body: Body, x: ir.Value, users: Sequence[Linear], names: Sequence[Sequence[str]]
    ) -> None:
        factors = self._factors(body, users, names)
        inverse = body.derive([factors], f"{factors.name}:inverse", _reciprocal)
        order = {node: index for index, node in enumerate(body.graph)}
        before = min((user.node for user in users), key=order.__getitem__)
        smooth = body.emit(before, "Mul", [x, inverse]).outputs[0]
        smooth.type, smooth.shape = x.type, x.shape
        for user in users:
            weight, turned = user.weight.values[0], made_by(user.node.inputs[1], "Transpose")
            assert turned is not None
            made = body.derive([weight, factors], f"{weight.name}:smooth", _columns_times)
            turned.replace_input_with(0, made)
            user.node.replace_input_with(0, smooth)
            self.fire(body)

    def _factors(
        self, body: Body, users: Sequence[Linear], names: Sequence[Sequence[str]]
    ) -> ir.Value:
        """``s`` (width,) of each call, computed when it is first read."""
        by_user = [body.weights(user.weight.values[0]) or [] for user in users]
        made = []
        for of_call, weights in zip(
            zip(*names, strict=True), zip(*by_user, strict=True), strict=True
        ):
            name = f"{of_call[0]}:factors"
            # Layers that read the same were seen together.
            seen = self._calibration.ranges[of_call[0]]
            made.append(body.initializer(name, _factors(name, seen, weights)))
        return body.lift(f"{users[0].weight.name}:factors", made)


def _factors(name: str, seen: InputRange, weights: Sequence[ir.TensorProtocol]) -> StreamedTensor:
    """``s`` (width,) fp32, computed when it is first read; 1 where the sample showed nothing."""
    width = int(weights[0].shape.numpy()[1])

    @cache
    def chosen() -> np.ndarray:
        if not seen.rows:
            return np.ones(width, dtype=np.float32)
        columns = np.max([np.abs(w).max(axis=0) for w in _blocks(weights)], axis=0)
        candidates = np.stack([_candidate(seen, columns, a) for a in EXPONENTS])
        best = int(np.argmin(_expected_errors(seen, weights, candidates)))
        return np.asarray(candidates[best])

    return StreamedTensor(
        name, ir.DataType.FLOAT, (width,), lambda start, stop: chosen()[start:stop]
    )


def _candidate(seen: InputRange, columns: np.ndarray, exponent: float) -> np.ndarray:
    """Powers of two, fp32; 1 where the input or the column of weights is all zeros."""
    known = (seen.channels > 0) & (columns > 0)
    x, w = (np.log2(np.where(known, each, 1)) for each in (seen.channels, columns))
    return np.exp2(np.rint(exponent * x - (1 - exponent) * w)).astype(np.float32)


def _expected_errors(
    seen: InputRange, weights: Sequence[ir.TensorProtocol], candidates: np.ndarray
) -> np.ndarray:
    """Mean square of the error of all products, for each of ``candidates`` (count, width).

    Rounding to a grid is off by a twelfth of the squared step in the mean, what is less than half
    a step by itself; errors of x, and of rows of W, are taken to be independent.
    """
    energy = seen.energy / candidates.astype(np.float64) ** 2
    step = (seen.channels / candidates).max(axis=1, keepdims=True) / INT8_MOST
    of_x = np.minimum(step**2 / 12, energy) * candidates.astype(np.float64) ** 2
    errors = np.zeros(len(candidates))
    for w in _blocks(weights):
        errors += of_x @ np.square(w, dtype=np.float64).sum(axis=0)
        steps = np.stack([np.abs(w * s).max(axis=1) for s in candidates]) / INT8_MOST
        errors += (np.square(steps, dtype=np.float64) / 12).sum(axis=1) * energy.sum(axis=1)
    return errors


def _blocks(weights: Sequence[ir.TensorProtocol]) -> Iterator[np.ndarray]:
    """Rows of all weights, a few at a time."""
    for weight in weights:
        rows, columns = (int(d) for d in weight.shape.numpy())
        step = max(1, _BLOCK // (4 * columns))
        for start in range(0, rows, step):
            yield np.asarray(rows_of(weight, start, min(rows, start + step)), np.float32)


def _reciprocal(tensors: Sequence[ir.TensorProtocol]) -> StreamedTensor:
    (factors,) = tensors
    return mapped(factors, f"{factors.name}:inverse", np.reciprocal)


def _columns_times(tensors: Sequence[ir.TensorProtocol]) -> StreamedTensor:
    weight, factors = tensors
    return mapped(weight, f"{weight.name}:smooth", lambda rows: rows * factors.numpy())
