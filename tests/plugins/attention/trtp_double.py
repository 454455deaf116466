"""What ``tensorrt`` and ``tensorrt.plugin`` have for ahead-of-time plugins, on numbers.

Stands in where the bindings of TensorRT 11 are not at hand. ``test_plugin_qdp`` holds its names and
arguments to those that were read from the bindings (``tensorrt_plugin_api.json``), and runs the
bindings themselves instead where there is a wheel of them.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any


class DataType(enum.Enum):
    """Element types, by TensorRT's names."""

    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    FP8 = 6
    BF16 = 7


class SymInt32:
    """A number that TensorRT would compute from shapes. No reflected operators, as there."""

    def __init__(self, value: Any = None) -> None:
        self.value = value.value if isinstance(value, SymInt32) else int(value)

    def _with(self, other: Any, made: int) -> SymInt32:
        assert isinstance(other, int | SymInt32)
        return type(self)(made)

    def __add__(self, other: Any) -> SymInt32:
        return self._with(other, self.value + int(other))

    def __sub__(self, other: Any) -> SymInt32:
        return self._with(other, self.value - int(other))

    def __mul__(self, other: Any) -> SymInt32:
        return self._with(other, self.value * int(other))

    def __floordiv__(self, other: Any) -> SymInt32:
        return self._with(other, self.value // int(other))

    def __int__(self) -> int:
        return int(self.value)


class ShapeExpr(SymInt32):
    """One dimension."""


class SymExprs:
    """Several expressions."""

    def __init__(self, length: int) -> None:
        self._exprs: list[Any] = [None] * length

    def __iter__(self) -> Any:
        return iter(self._exprs)

    def __getitem__(self, index: int) -> Any:
        return self._exprs[index]

    def __len__(self) -> int:
        return len(self._exprs)

    def __setitem__(self, index: int, expr: Any) -> None:
        assert isinstance(expr, SymInt32)
        self._exprs[index] = expr


class SymIntExprs(SymExprs):
    """The scalars of a kernel."""


class KernelLaunchParams:
    """Grid, block and shared memory."""

    def __init__(
        self,
        grid_x: Any = 1,
        grid_y: Any = 1,
        grid_z: Any = 1,
        block_x: Any = 1,
        block_y: Any = 1,
        block_z: Any = 1,
        shared_mem: Any = 0,
    ) -> None:
        sizes = (grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_mem)
        self.sizes = [int(SymInt32(each)) for each in sizes]


class TensorDesc:
    """Shape and type of a tensor."""

    def __init__(
        self, shape_expr: Any = None, dtype: Any = None, format: Any = None, scale: Any = None
    ) -> None:
        self.shape_expr, self.dtype, self._aliased_to = shape_expr, dtype, None

    def like(self) -> TensorDesc:
        """Another of the same shape and type."""
        return TensorDesc(self.shape_expr, self.dtype)

    def aliased(self) -> TensorDesc:
        """Another in the same memory."""
        made = self.like()
        made._aliased_to = self
        return made

    def get_aliased(self) -> Any:
        """Whose memory it is in."""
        return self._aliased_to


REGISTERED: dict[str, Callable[..., Any]] = {}
AOT: dict[str, Callable[..., Any]] = {}


def from_shape_expr(shape_expr: Any, dtype: Any) -> TensorDesc:
    """A tensor of this shape."""
    made = SymExprs(len(shape_expr))
    for index, each in enumerate(shape_expr):
        made[index] = each if isinstance(each, ShapeExpr) else ShapeExpr(each)
    return TensorDesc(made, dtype)


def register(plugin_id: str, lazy_register: bool = False) -> Callable[..., Any]:
    """Tensors first, then attributes of plain types; all annotated, none with a default."""

    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        assert plugin_id not in REGISTERED
        kinds = [p.annotation for p in inspect.signature(function).parameters.values()]
        tensors = sum(kind is TensorDesc for kind in kinds)
        assert set(kinds[:tensors]) == {TensorDesc}
        assert set(kinds[tensors:]) <= {int, float, str, bool, bytes}
        REGISTERED[plugin_id] = function
        return function

    return decorator


def aot_impl(plugin_id: str) -> Callable[..., Any]:
    """The registered arguments, then ``outputs`` and ``tactic``."""

    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        wanted = list(inspect.signature(REGISTERED[plugin_id]).parameters)
        assert list(inspect.signature(function).parameters) == [*wanted, "outputs", "tactic"]
        AOT[plugin_id] = function
        return function

    return decorator


def launch(
    op: str, tensors: Sequence[tuple[str, Sequence[int]]], attributes: dict[str, Any]
) -> dict[str, Any]:
    """What TensorRT learns of a node of ``op`` with these (type, shape) and attributes."""
    inputs = [from_shape_expr(shape, DataType[dtype]) for dtype, shape in tensors]
    made = REGISTERED[f"lepton::{op}"](*inputs, **attributes)
    outputs = made if isinstance(made, tuple) else (made,)
    entry, code, params, scalars = AOT[f"lepton::{op}"](*inputs, *attributes.values(), outputs, 0)
    assert isinstance(params, KernelLaunchParams)
    aliases = [inputs.index(o.get_aliased()) if o.get_aliased() else -1 for o in outputs]
    return {
        "entry": entry,
        "code": code,
        "sizes": params.sizes,
        "scalars": [int(each) for each in scalars],
        "outputs": [[o.dtype.name, [int(each) for each in o.shape_expr]] for o in outputs],
        "aliases": aliases,
    }


TRT = SimpleNamespace(DataType=DataType, __name__="tensorrt")
