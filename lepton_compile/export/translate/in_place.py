"""Ops that write into their first argument, such as ``x.scatter_(..)`` and ``x /= y``.

The graph has values, not places: the op becomes the one without the underscore, and whoever reads
the argument later gets its result. A place with two names would keep its old value under the other,
so an argument that is a view, or of which a view was taken before, is refused.
"""

from __future__ import annotations

import operator

from torch import fx

__all__ = ["aliased", "writes"]

# fmt: off
_VIEWS = frozenset({
    "alias", "chunk", "contiguous", "detach", "diagonal", "expand", "expand_as", "narrow",
    "permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "to",
    "transpose", "unbind", "unflatten", "unsqueeze", "view", "view_as",
})
# fmt: on


def writes(name: str) -> bool:
    """Whether an op by this name (``aten.div_``) writes into its first argument."""
    return name.startswith("aten.") and name.endswith("_") and not name.endswith("__")


def aliased(node: fx.Node) -> bool:
    """Whether what the op writes into has a second name that may be read afterwards."""
    target = node.args[0]
    if not isinstance(target, fx.Node) or target.op == "placeholder":
        return True
    if _is_view(target):
        return True
    views = [user for user in target.users if user < node and _is_view(user)]
    return any(_read_behind(view, node) for view in views)


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:  # a part of what an op gave several of
        return isinstance(node.args[0], fx.Node) and _is_view(node.args[0])
    name = str(node.target).split(".")
    return name[0] == "aten" and len(name) > 1 and name[1] in _VIEWS


def _read_behind(view: fx.Node, node: fx.Node) -> bool:
    """Whether a view, or a view of it, is read by something behind ``node``."""
    return any(node < user or (_is_view(user) and _read_behind(user, node)) for user in view.users)
