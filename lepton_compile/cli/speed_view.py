"""Measurements as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from lepton_compile.cli.output import bytes_text, many_text, number_text, seconds_text, table

__all__ = ["bench_tables"]


def bench_tables(data: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Measurements (``BenchReport.as_dict``), one table after the other."""
    columns: tuple[str, ...]
    eager = any(case["eager_ms"] for case in data["cases"])
    columns = ("case", "p50>", "p90>", "p99>", "eager p50>", "eager p90>", "times eager>")
    yield _cases("Latency in ms", columns, [_case(case) for case in data["cases"]], eager)
    if data.get("eager_left_out"):
        yield f"PyTorch eager was not run: {data['eager_left_out']}"
    columns = ("case", "tokens>", "eager tokens>", "rows>", "eager rows>")
    yield _cases("Rates per second", columns, [_rates(case) for case in data["cases"]], eager)
    starts = [("engine", data.get("start")), ("PyTorch eager", data.get("eager_start"))]
    rows = [(name, *_start(start)) for name, start in starts if start]
    if rows:
        columns = ("fresh process", "import>", "load>", "first run>", "peak memory>")
        yield table("Start", columns, rows)
    if data.get("bytes_on_disk"):
        yield f"On disk: {bytes_text(data['bytes_on_disk'])}"
    yield _machine(data["machine"])


def _cases(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], eager: bool
) -> RenderableType:
    """A table, without the columns of PyTorch ``eager`` where it was not run."""
    kept = [at for at, name in enumerate(columns) if eager or "eager" not in name]
    return table(title, [columns[at] for at in kept], [[row[at] for at in kept] for row in rows])


def _machine(machine: Mapping[str, Any]) -> str:
    threads = many_text(machine["threads"], "thread") if machine["threads"] else "default threads"
    return (
        f"Machine: {machine['cpu']}, {many_text(machine['logical_cpus'], 'CPU')}, {threads}, "
        f"{machine['os']}, Python {machine['python']}, "
        f"onnxruntime {machine.get('onnxruntime', 'not installed')}"
    )


def _case(case: Mapping[str, Any]) -> tuple[str, ...]:
    engine, eager = case["engine_ms"], case["eager_ms"] or {}
    return (
        case["name"],
        *(number_text(engine[at]) for at in ("p50", "p90", "p99")),
        *(number_text(eager.get(at)) for at in ("p50", "p90")),
        number_text(case["speedup"], 3),
    )


def _rates(case: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = [
        f"{who}_{what}_per_second" for what in ("tokens", "rows") for who in ("engine", "eager")
    ]
    return case["name"], *(number_text(case.get(kind)) for kind in kinds)


def _start(start: Mapping[str, Any]) -> tuple[str, ...]:
    parts = [seconds_text(start[f"{part}_seconds"]) for part in ("import", "load", "first_run")]
    return *parts, bytes_text(start["peak_memory_bytes"])
