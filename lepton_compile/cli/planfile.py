"""A TensorRT plan in summary: what can be said of it without the driver that opens it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from lepton_compile.cli.output import bytes_text, many_text, table
from lepton_compile.errors import SourceError

__all__ = ["NOT_PARSED", "PlanSummary", "check_plan", "is_plan", "plan_tables", "summarize_plan"]

NOT_PARSED = "not parsed: needs a driver"
"""TensorRT reads a plan on a GPU alone; of an artifact's, ``report.json`` has the layers."""

_SUFFIXES = (".plan", ".engine", ".trt")
_MARK = b"trt"


@dataclass(frozen=True)
class PlanSummary:
    """A plan from outside.

    Attributes:
        path: the file.
        bytes: its size.
        header: first bytes in hex: what the next two were read from.
        version: of the TensorRT-RTX that built it; None where the header is of another kind.
        compute_capabilities: that it was built for, by its header.
        layers: ``NOT_PARSED``, or how many the report of the build has.
    """

    path: str
    bytes: int
    header: str
    version: str | None
    compute_capabilities: tuple[str, ...]
    layers: str = NOT_PARSED

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


def is_plan(path: Path) -> bool:
    """Whether a file is one by its name or its first bytes."""
    if path.suffix in _SUFFIXES:
        return True
    return _start(path, 4)[1:] == _MARK


def check_plan(path: Path) -> None:
    """What has a plan's name may be anything; an artifact's digests say that its plan is one.

    Raises:
        SourceError: the file does not begin as plans do, or ends before their header does.
    """
    from lepton_compile.engines.tensorrt.plan_header import LENGTH

    start = _start(path, LENGTH)
    if start[1:4] == _MARK and len(start) == LENGTH:
        return
    size = many_text(path.stat().st_size, "byte")
    raise SourceError(
        "this file is not a TensorRT plan",
        where=str(path),
        found=f"{size} that begin with {start[:8].hex(' ')}" if start else "an empty file",
        available=[f"what begins with a letter and {_MARK.decode()!r}, as TensorRT writes it"],
        hint="build it again, or copy it again as binary data",
    )


def _start(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return file.read(length)


def summarize_plan(path: Path, layers: int = 0) -> PlanSummary:
    """Size and header; the rest of the file is not read, and nothing is deserialized.

    Args:
        layers: how many the builder's parser made, where its report is at hand.
    """
    from lepton_compile.engines.tensorrt.plan_header import LENGTH, read_header

    start = _start(path, LENGTH)
    found = read_header(start)
    capabilities = found.capabilities if found else ()
    return PlanSummary(
        path=str(path),
        bytes=path.stat().st_size,
        header=start.hex(" ", 4),
        version=found.version if found else None,
        compute_capabilities=(*capabilities, *(("portable",) if found and found.portable else ())),
        layers=f"{layers}, as parsed by the builder" if layers else NOT_PARSED,
    )


def plan_tables(
    summary: PlanSummary,
    entry: Mapping[str, Any] | None = None,
    layers: Sequence[Mapping[str, Any]] = (),
) -> Iterator[RenderableType]:
    """What to print of a plan.

    Args:
        entry: its engine's in the manifest, where there is one.
        layers: of the report of its build.
    """
    rows = [
        ("size", bytes_text(summary.bytes)),
        ("built by", f"TensorRT-RTX {summary.version}" if summary.version else "not in its header"),
        ("for", ", ".join(summary.compute_capabilities) or "not in its header"),
        ("header", summary.header),
        ("layers", summary.layers),
    ]
    attention = (entry or {}).get("attention")
    if attention:
        forms = ", ".join(f"{count} {form}" for form, count in attention["forms"].items())
        rows.append(("attention", f"{attention['layers']} layers: {forms}"))
    yield table("Plan", ("what", "value"), rows)
    profiles = [
        (p["name"], name, *(_size(p[end][name]) for end in ("min", "opt", "max")))
        for p in (entry or {}).get("profiles") or ()
        for name in p["max"]
        if not name.startswith("past_key_values.")
    ]
    if profiles:
        yield table("Profiles", ("profile", "input", "least", "tuned for", "most"), profiles)
    if layers:
        from lepton_compile.report.engines import layer_counts

        counts = [(kind, precision, str(count)) for kind, precision, count in layer_counts(layers)]
        yield table("Layers", ("type", "precision", "layers>"), counts)


def _size(shape: list[int]) -> str:
    return "x".join(map(str, shape))
