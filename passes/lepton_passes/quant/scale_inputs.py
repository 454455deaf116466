"""Divide what 4-bit layers read by a factor for each channel, and multiply their weights by it.

    Before   MatMul(RMSNormalization(h, g), Transpose(W)) of every layer that reads the norm
    After    MatMul(RMSNormalization(h, g / s), Transpose(W * s))

Sixteen levels round a column that reads large numbers as coarsely as its neighbours. Multiplied by
s, it is rounded more finely, at their expense. ``s_j = (mean x_j^2)^(a / 2)``, with the exponent a,
one for all that read the input, whose expected error is least: Lin et al., AWQ, arXiv:2306.00978.
The error is that of rounding with scales that mind the columns, as a part of the product, in
expectation over a sample whose channels are taken to be independent; a part of the rows tells it.

No node is added: ``_makers.py`` says what takes s in. Keys and values in a cache are then those of
this graph, values divided by s. Factors are eighths of a power of two in their exponents: machines
that add up in another order mostly find the same.

Place: behind clean-up, in front of all that sees ranges or rounds. Refuses: what ``_makers.py``
refuses; an input that was not calibrated; a weight that something else reads too, such as a table
that is the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np
import onnx_ir as ir

from lepton_passes.body import Body
from lepton_passes.contract import LeptonPass
from lepton_passes.linear import Linear, linears_by_input
from lepton_passes.match import made_by
from lepton_passes.quant._makers import Maker, Place, is_shared, maker_of
from lepton_passes.quant.calibration import parameters_of
from lepton_passes.quant.scaled import ScaledEnergies
from lepton_passes.quant.weight_int4 import group_of
from lepton_passes.quant.weight_int4_weighted import weighted_int4
from lepton_passes.quant.weights import Choose, is_table
from lepton_passes.tensors import StreamedTensor, mapped, rows_of

__all__ = ["EXPONENTS", "ScaleInputs"]

EXPONENTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
STEPS = 8
"""Factors to an octave."""

# Rows that errors are expected from, in slices from all over a weight; what is small is read whole.
_ROWS, _SLICE, _SMALL = 256, 32, 1 << 22
_LEAST = 1e-4


class ScaleInputs(LeptonPass):
    """Divide what 4-bit layers read, within what makes it; fires for each layer that reads.

    Args:
        choose: format of each parameter; left out, 4 bits for all.
        energies: mean squares of what layers read; they follow.
    """

    name = "scale-inputs"
    summary = "AWQ: activation-aware scaling of what 4-bit layers read, by a sample"
    changes_numbers = True

    def __init__(
        self, choose: Choose | None = None, energies: ScaledEnergies | None = None
    ) -> None:
        super().__init__()
        self._choose: Choose = choose or (lambda _name, _embedding: (4, None))
        self.energies = energies if energies is not None else ScaledEnergies({})
        self._made: dict[tuple[str, ...], ir.Value] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._made = {}
        return super().call(model)

    def rewrite(self, body: Body) -> None:
        for x, users in linears_by_input(body).items():
            names = [parameters_of(body, user) for user in users]
            groups = [self._groups(user, each) for user, each in zip(users, names, strict=True)]
            if not any(group for of_user in groups for group in of_user):
                continue
            nodes = [user.node for user in users]
            maker = self._refuses(body, users, names) or maker_of(body, x, nodes)
            if not isinstance(maker, str) and maker.columns != users[0].weight.columns:
                maker = "what makes its input has another width"
            if isinstance(maker, str):
                self.refuse(body, users[0].node, maker)
            else:
                self._scale(body, users, maker, self._factors(body, users, names, groups, maker))

    def _groups(self, user: Linear, names: Sequence[str]) -> list[int | None]:
        """Columns that share a scale, of each call; None for a weight that gets no 4 bits."""
        columns, table = user.weight.columns, is_table(user.weight.values[0])
        choices = [self._choose(name, table) for name in names]
        return [group_of(columns, c[1]) if c is not None and c[0] == 4 else None for c in choices]

    def _refuses(
        self, body: Body, users: Sequence[Linear], names: Sequence[Sequence[str]]
    ) -> str | None:
        if not all(user.weight.plain for user in users):
            return "a weight that reads its input is rounded already"
        if any(is_table(user.weight.values[0]) for user in users):
            return "its weight is a table whose rows are looked up, too"
        if any(is_shared(body, user) for user in users):
            return "its weight is read by something else, too"
        if any(name not in self.energies for of_user in names for name in of_user):
            return "its input was not calibrated"
        return None

    def _scale(self, body: Body, users: Sequence[Linear], maker: Maker, factors: ir.Value) -> None:
        for user in users:
            turned = made_by(user.node.inputs[1], "Transpose")
            assert turned is not None
            # Not the weight of the linear layer: its rows may have been divided meanwhile.
            weight = turned.inputs[0]
            assert weight is not None
            name = f"{weight.name}:scaled"
            made = body.derive([weight, factors], name, lambda t: _columns_times(t, maker))
            turned.replace_input_with(0, made)
            self.fire(body)
        for place in maker.places:
            _divide(body, place, factors)

    def _factors(
        self,
        body: Body,
        users: Sequence[Linear],
        names: Sequence[Sequence[str]],
        groups: Sequence[Sequence[int | None]],
        maker: Maker,
    ) -> ir.Value:
        """``s`` (width,) of each call, computed when it is first read."""
        tensors = [body.weights(user.weight.values[0]) or [] for user in users]
        pairs = [list(zip(*each, strict=True)) for each in zip(tensors, groups, strict=True)]
        made = [
            self._factor(body, of_call, rounded, maker)
            for of_call, rounded in zip(
                zip(*names, strict=True), zip(*pairs, strict=True), strict=True
            )
        ]
        return body.lift(f"{users[0].weight.name}:factors", made)

    def _factor(
        self,
        body: Body,
        names: tuple[str, ...],
        weights: Sequence[tuple[ir.TensorProtocol, int | None]],
        maker: Maker,
    ) -> ir.Value:
        """Those of one call; of calls whose weights are the same, the same."""
        if names not in self._made:
            rounded = [(tensor, group) for tensor, group in weights if group is not None]
            found = _Factors(self.energies, names[0], rounded, maker)
            for name in names:
                self.energies.divide(name, found.of_columns)
            name = f"{names[0]}:factors"
            self._made[names] = body.initializer(name, found.tensor(name))
        return self._made[names]


class _Factors:
    """The factors of one input, computed once, when somebody asks."""

    def __init__(
        self,
        energies: ScaledEnergies,
        name: str,
        weights: Sequence[tuple[ir.TensorProtocol, int]],
        maker: Maker,
    ) -> None:
        self._energies, self._name = energies, name
        self._weights, self._maker = weights, maker
        self._found: np.ndarray | None = None
        self._first = Lock()  # rows are asked for by several threads

    def of_columns(self) -> np.ndarray:
        """The factor of each column of the weights."""
        return self._maker.spread(self._chosen())

    def tensor(self, name: str) -> StreamedTensor:
        """The factors as what makes the input takes them, fp32 (width,)."""
        return StreamedTensor(
            name,
            ir.DataType.FLOAT,
            (self._maker.width,),
            lambda start, stop: self._chosen()[start:stop],
        )

    def _chosen(self) -> np.ndarray:
        with self._first:
            if self._found is None:
                self._found = self._search()
            return self._found

    def _search(self) -> np.ndarray:
        if not self._weights:  # all that read it keep their bits
            return np.ones(self._maker.width, dtype=np.float32)
        energy = self._energies.before[self._name]
        candidates = [_candidate(self._maker.gathered(energy), a) for a in EXPONENTS]
        errors = np.zeros(len(candidates))
        for tensor, group in self._weights:
            w = _some_rows(tensor)
            size = float(np.square(w, dtype=np.float64).sum(axis=0) @ energy) or 1.0
            for index, factors in enumerate(candidates):
                error = _error(w, self._maker.spread(factors), energy, group)
                errors[index] += error / size
        return candidates[int(np.argmin(errors))]


def _candidate(energy: np.ndarray, exponent: float) -> np.ndarray:
    """Factors (width,) fp32, 1 in the geometric mean."""
    least = energy.mean() * _LEAST
    logs = np.log2(np.maximum(energy, least)) if least > 0 else np.zeros(len(energy))
    logs = exponent / 2 * (logs - logs.mean())
    return np.asarray(np.exp2(np.rint(STEPS * logs) / STEPS), dtype=np.float32)


def _error(w: np.ndarray, factors: np.ndarray, energy: np.ndarray, group: int) -> float:
    """Expected square of what rounding ``w * factors`` does to the products of ``w``."""
    scaled = w * factors
    q, scale = weighted_int4(scaled, group, energy / np.square(factors, dtype=np.float64))
    wide = (q.reshape(*scale.shape, -1) * scale[..., None]).reshape(w.shape)
    return float(np.square((wide - scaled) / factors, dtype=np.float64).sum(axis=0) @ energy)


def _some_rows(tensor: ir.TensorProtocol) -> np.ndarray:
    """Rows from all over a weight, fp32."""
    rows, columns = (int(d) for d in tensor.shape.numpy())
    if rows <= _ROWS:
        return np.asarray(rows_of(tensor, 0, rows), dtype=np.float32)
    starts = np.linspace(0, rows - _SLICE, _ROWS // _SLICE).astype(int)
    whole = rows_of(tensor, 0, rows) if rows * columns <= _SMALL else None
    parts = [
        rows_of(tensor, start, start + _SLICE) if whole is None else whole[start : start + _SLICE]
        for start in starts
    ]
    return np.concatenate(parts, dtype=np.float32)


def _divide(body: Body, place: Place, factors: ir.Value) -> None:
    value = place.node.inputs[place.index]
    assert value is not None
    made = body.derive(
        [value, factors], f"{value.name}:divided", lambda t: _rows_over(t, place.start)
    )
    place.node.replace_input_with(place.index, made)


def _columns_times(tensors: Sequence[ir.TensorProtocol], maker: Maker) -> StreamedTensor:
    weight, factors = tensors
    return mapped(
        weight, f"{weight.name}:scaled", lambda rows: rows * maker.spread(factors.numpy())
    )


def _rows_over(tensors: Sequence[ir.TensorProtocol], first: int) -> StreamedTensor:
    """A vector or matrix whose rows from ``first`` on are divided, as many as there are factors."""
    source, factors = tensors

    def read(start: int, stop: int) -> np.ndarray:
        rows = np.array(rows_of(source, start, stop))
        s = factors.numpy()
        low, high = max(start, first), min(stop, first + len(s))
        if low < high:
            by = s[low - first : high - first].reshape(-1, *[1] * (rows.ndim - 1))
            rows[low - start : high - start] /= by
        return rows

    return StreamedTensor(f"{source.name}:divided", source.dtype, source.shape.numpy(), read)
