"""Optimization profiles from the ranges of a recipe.

An encoder has one profile over its whole range. A decoder has two: ``prefill`` takes one row of any
length, ``decode`` one token of each row; the cache's capacity is part of every shape and the same
in both. Where the recipe lists several capacities, each has these two. Kernels are chosen for the
middle of a range, or for its end where the recipe's objective says so.

Instead of the two a recipe may ask for one, ``joint``, that takes prompts and steps. A profile is a
box, and memory is set aside for its far corner, the most rows of the most tokens, where no loader
goes. So it takes only as many tokens of a row as keep that corner as large as ``prefill``'s, but
enough to keep a GPU busy; longer prompts are read in pieces. Loaders make one context of it, since
each holds that memory. Kernels are chosen for a step, as in ``decode``: an answer is one prompt and
many steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from lepton_compile.engines.tensorrt.order import Profile
from lepton_compile.errors import EngineError

__all__ = ["profile_count", "profiles_for"]

Bounds = tuple[int, int, int]
"""Least, usual, most."""

PIECE = 256
"""Tokens of a prompt from which on a GPU takes longer to multiply by weights than to read them."""

INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


def profiles_for(
    inputs: Sequence[ir.Value],
    ranges: Mapping[str, Sequence[int]],
    *,
    decoder: bool,
    objective: str = "latency",
    rooms: Sequence[int] = (),
    joint: bool = False,
) -> list[Profile]:
    """Profiles for the inputs of a graph.

    Args:
        inputs: a dimension is a number or the name of a range.
        ranges: name -> [least, most], of dimensions or of an input's values.
        objective: of the recipe; ``throughput`` optimizes for the largest batch.
        rooms: capacities of a decoder's cache, where it has several.
        joint: a decoder has one profile for each of them in place of two.

    Raises:
        EngineError: a range is empty, or an input has a dimension without one.
    """
    for name, (low, high) in ((name, tuple(bounds)) for name, bounds in ranges.items()):
        if not 0 <= low <= high:
            raise EngineError(
                "a range runs backwards", where=f"shapes.{name}", found=f"{low}..{high}"
            )
    (least_rows, most_rows), (least, most) = (
        tuple(ranges.get(name, (1, 1))) for name in ("batch", "sequence")
    )
    usual_rows = most_rows if objective == "throughput" else least_rows
    batch, length = (least_rows, usual_rows, most_rows), (least, max(least, most // 2), most)
    if not decoder:
        sizes = {"batch": batch, "sequence": length}
        return [_profile("all", inputs, ranges, sizes)]
    found = []
    for room in rooms or (most,):
        sizes = {"capacity": (room, room, room)} if rooms else {}
        behind = f"-{room}" if rooms else ""
        for name, phase in _phases(batch, room, joint=joint).items():
            found.append(_profile(f"{name}{behind}", inputs, ranges, {**phase, **sizes}))
    return found


def profile_count(*, decoder: bool, rooms: Sequence[int] = (), joint: bool = False) -> int:
    """How many ``profiles_for`` makes."""
    return (1 if joint else 2) * max(1, len(rooms)) if decoder else 1


def _phases(batch: Bounds, room: int, *, joint: bool) -> dict[str, dict[str, Bounds]]:
    """Rows and tokens by name of profile, over a cache of one capacity."""
    if joint:
        piece = max(min(room, PIECE), room // batch[2])
        return {"joint": {"batch": (1, *batch[1:]), "sequence": (1, 1, piece)}}
    return {
        "prefill": {"batch": (1, 1, 1), "sequence": (1, max(1, room // 2), room)},
        "decode": {"batch": batch, "sequence": (1, 1, 1)},
    }


def _profile(
    name: str,
    inputs: Sequence[ir.Value],
    ranges: Mapping[str, Sequence[int]],
    sizes: Mapping[str, Bounds],
) -> Profile:
    profile = Profile(name, {}, {}, {})
    for value in inputs:
        bounds = [_bounds(value, size, ranges, sizes) for size in _dimensions(value)]
        for index, shapes in enumerate((profile.min, profile.opt, profile.max)):
            shapes[value.name or ""] = [each[index] for each in bounds]
        known = _values(value, ranges)
        if known is not None:
            profile.values[value.name or ""] = list(known)
    return profile


def _dimensions(value: ir.Value) -> list[int | str]:
    if value.shape is None:
        raise EngineError("an input has no shape", where=value.name)
    return [size if isinstance(size, int) else str(size.value) for size in value.shape]


def _bounds(
    value: ir.Value,
    size: int | str,
    ranges: Mapping[str, Sequence[int]],
    sizes: Mapping[str, Bounds],
) -> Bounds:
    if isinstance(size, int):
        return size, size, size
    if size in sizes:
        return sizes[size]
    if size in ranges:
        low, high = ranges[size]
        return low, (low + high) // 2, high
    raise EngineError(
        "the range of a dimension is not known",
        where=value.name,
        found=size,
        available=sorted({*sizes, *ranges}),
    )


def _values(value: ir.Value, ranges: Mapping[str, Sequence[int]]) -> Bounds | None:
    """Range of the values of an input that may be a shape: a number, or a list of one.

    The graph does not say which inputs shapes are computed from, the parsed network does. A count
    of tokens without a range of its own is at most the cache.
    """
    if value.dtype not in INTEGERS or _dimensions(value) not in ([], [1]):
        return None
    low, high = ranges.get(value.name or "") or (1, ranges.get("sequence", (1, 1))[1])
    return low, max(low, (low + high) // 2), high
