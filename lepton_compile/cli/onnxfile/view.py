"""An ONNX summary as tables, readable at 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from lepton_compile.cli.onnxfile.summary import BY_NAME, ModelSummary, Value
from lepton_compile.cli.output import bytes_text, counts_text, table

__all__ = ["fold_numbered", "model_tables", "shape_text"]


def model_tables(summary: ModelSummary) -> Iterator[RenderableType]:
    """What to print, in order; tables that would be empty are left out."""
    opsets = ", ".join(f"{domain} {version}" for domain, version in summary.opsets.items())
    yield f"IR {summary.ir_version} · opsets {opsets} · {summary.producer or 'no producer named'}"
    yield _values("Inputs", summary.inputs)
    yield _values("Outputs", summary.outputs)
    if list(summary.layers) == [BY_NAME]:
        yield f"Layers: {summary.layers[BY_NAME]}, counted by the numbers in names"
    elif summary.layers:
        yield table("Layers", ("kind", "count>"), list(summary.layers.items()))
    yield from _ops(summary)
    if summary.functions:
        yield table("Functions", ("name",), [(name,) for name in summary.functions])
    yield from _weights(summary)


def shape_text(shape: Sequence[int | str] | None) -> str:
    """``(batch, sequence, 384)``; unknown rank is said so."""
    return "any shape" if shape is None else f"({', '.join(map(str, shape))})"


def fold_numbered(values: Sequence[Value]) -> list[tuple[str, Value]]:
    """Values that differ by a layer number in their name alone become one line.

    ``present.0.key`` to ``present.17.key`` of one shape are shown as ``present.{0..17}.key``.
    """
    groups: dict[tuple[str, str, object], list[tuple[int, Value]]] = {}
    for value in values:
        match = re.search(r"(?<=\.)\d+(?=\.)", value.name)
        name = f"{value.name[: match.start()]}#{value.name[match.end() :]}" if match else value.name
        number = int(match[0]) if match else -1
        groups.setdefault((name, value.dtype, value.shape), []).append((number, value))
    return [
        (_label(name, [n for n, _ in group]), group[0][1]) for (name, _, _), group in groups.items()
    ]


def _label(name: str, numbers: list[int]) -> str:
    if numbers == [-1]:
        return name
    if len(numbers) == 1:
        return name.replace("#", str(numbers[0]))
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    inside = f"{numbers[0]}..{numbers[-1]}" if whole else ",".join(map(str, numbers))
    return name.replace("#", "{" + inside + "}")


def _values(title: str, values: Sequence[Value]) -> RenderableType:
    rows = [
        (label, value.dtype, shape_text(value.shape) + _default(value))
        for label, value in fold_numbered(values)
    ]
    return table(title, ("name", "type", "shape"), rows)


def _default(value: Value) -> str:
    return "" if value.default is None else f", optional: {value.default}"


def _ops(summary: ModelSummary) -> Iterator[RenderableType]:
    for domain, counts in summary.ops.items():
        listed = counts_text(counts)
        yield table(f"Ops of {domain}: {sum(counts.values())}", ("op and count",), [(listed,)])


def _weights(summary: ModelSummary) -> Iterator[RenderableType]:
    rows = [(name, count, bytes_text(size)) for name, (count, size) in summary.weights.items()]
    if rows:
        yield table("Stored tensors", ("type", "count>", "size>"), rows)
    if summary.quantized:
        forms = [
            (q.op, q.bits, q.block, "yes" if q.zeros else "", q.count, bytes_text(q.bytes))
            for q in summary.quantized
        ]
        columns = ("read by", "bits>", "block>", "zero points", "weights>", "size with scales>")
        yield table("Quantized weights", columns, forms)
    if summary.files:
        files = [(f.name, bytes_text(f.needed), _state(f.needed, f.found)) for f in summary.files]
        yield table("Weight files", ("file", "needed>", "state"), files)


def _state(needed: int, found: int | None) -> str:
    if found is None:
        return "missing"
    return "there" if found >= needed else f"too short: {bytes_text(found)}"
