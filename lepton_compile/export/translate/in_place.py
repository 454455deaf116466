"""Ops that write into their first argument, such as ``x.scatter_(..)``, ``x /= y``, ``x[1:] = y``.

The graph has values, not places: the op becomes the one without the underscore, and whoever reads
the argument later gets its result. What is written into a part, a slice or a row, is put between
the rest of the whole. A place with two names would keep its old value under the other, so what is
read by another view that was taken before is refused, as is an argument that is given. A view that
is all that is left of its tensor (``y = x.permute(..); y += z``) has no second name.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, NamedTuple

import onnx_ir as ir
from torch import fx

from .types import DTYPES, END

if TYPE_CHECKING:
    from .core import Translator

__all__ = ["Written", "put_back", "writes", "written"]

# fmt: off
_VIEWS = frozenset({
    "alias", "chunk", "contiguous", "detach", "diagonal", "expand", "expand_as", "narrow",
    "permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "to",
    "transpose", "unbind", "unflatten", "unsqueeze", "view", "view_as",
})
# fmt: on
_ROWS, _ROW = "aten.slice.Tensor", "aten.select.int"


class Written(NamedTuple):
    """What an op writes into: ``parts``, each of the one before, lead there from ``whole``."""

    whole: fx.Node
    parts: list[fx.Node]


def writes(name: str) -> bool:
    """Whether an op by this name (``aten.div_``) writes into its first argument."""
    ours = name.startswith(("aten.", "lepton."))
    return ours and name.endswith("_") and not name.endswith("__")


def written(node: fx.Node) -> Written | None:
    """Where the op writes; None where that has a second name that may be read afterwards."""
    target, parts = node.args[0], list[fx.Node]()
    while isinstance(target, fx.Node) and str(target.target) in (_ROWS, _ROW):
        parts.append(target)
        target = target.args[0]
    if not isinstance(target, fx.Node) or target.op == "placeholder":
        return None
    if _is_view(target) and not _alone(target, node):
        return None
    for name in (target, *parts):
        views = [user for user in name.users if user < node and _is_view(user)]
        if any(_read_behind(view, node) for view in views if view not in parts):
            return None
    return Written(target, parts[::-1])


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:  # a part of what an op gave several of
        return isinstance(node.args[0], fx.Node) and _is_view(node.args[0])
    name = str(node.target).split(".")
    return name[0] == "aten" and len(name) > 1 and name[1] in _VIEWS


def _alone(view: fx.Node, node: fx.Node) -> bool:
    """Whether what a view is of is made here, and read behind ``node`` through the view alone."""
    while _is_view(view):
        source = view.args[0]
        if not isinstance(source, fx.Node) or source.op != "call_function":
            return False
        others = [user for user in source.users if user is not view]
        if any(node < user or (_is_view(user) and _read_behind(user, node)) for user in others):
            return False
        view = source
    return True


def _read_behind(view: fx.Node, node: fx.Node) -> bool:
    """Whether a view, or a view of it, is read by something behind ``node``."""
    return any(node < user or (_is_view(user) and _read_behind(user, node)) for user in view.users)


def put_back(t: Translator, written: Written, result: ir.Value) -> None:
    """Have whoever reads the whole, or one of the parts, later read what was written."""
    for index in reversed(range(len(written.parts))):
        part = written.parts[index]
        t.values[part] = result
        whole = part.args[0]
        assert isinstance(whole, fx.Node)
        result = _around(t, whole, part, result)
        result.dtype = DTYPES[whole.meta["val"].dtype]
        result.shape = t.dim_names(whole.meta["val"].shape)
    t.values[written.whole] = result


def _around(t: Translator, whole: fx.Node, part: fx.Node, new: ir.Value) -> ir.Value:
    """The whole with ``new`` where the part is."""
    defaults = (0, 0, END, 1)
    given = [*(t.get(each) for each in part.args[1:]), *defaults[len(part.args) - 1 :]]
    axis, start, end, step = (d if g is None else g for g, d in zip(given, defaults, strict=True))
    if str(part.target) == _ROW:
        if not isinstance(start, int):
            raise ValueError("a row by a number that is open")
        new = t.builder.op("Unsqueeze", [new, t.builder.ints(axis)])
        end = END if start == -1 else start + 1
    if step != 1:
        raise ValueError("rows with others between them")
    value, first, last = t.value(whole), t.builder.ints(0), t.builder.ints(END)
    axes, pieces = t.builder.ints(axis), [new]
    if not isinstance(start, int) or start != 0:
        pieces.insert(0, t.builder.op("Slice", [value, first, t.size(start), axes]))
    if not isinstance(end, int) or end != END:
        pieces.append(t.builder.op("Slice", [value, t.size(end), last, axes]))
    return t.builder.op("Concat", pieces, {"axis": axis}, at=t.path(part))
