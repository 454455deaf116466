"""Measurements as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from lepton_compile.cli.output import bytes_text, number_text, table

__all__ = ["bench_tables"]


def bench_tables(data: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Measurements (``BenchReport.as_dict``), one table after the other."""
    columns = ("case", "p50 ms>", "p90 ms>", "p99 ms>", "eager p50>", "times eager>", "tokens/s>")
    yield table("Speed", columns, [_case(case) for case in data["cases"]])
    if data.get("eager_left_out"):
        yield f"PyTorch eager was not run: {data['eager_left_out']}"
    start = data.get("start")
    if start:
        yield (
            f"Fresh process: import {start['import_seconds'] * 1e3:.0f} ms, "
            f"load {start['load_seconds'] * 1e3:.0f} ms, "
            f"first run {start['first_run_seconds'] * 1e3:.0f} ms, "
            f"peak memory {bytes_text(start['peak_memory_bytes'])}"
        )
    if data.get("bytes_on_disk"):
        yield f"On disk: {bytes_text(data['bytes_on_disk'])}"
    machine = data["machine"]
    yield (
        f"Machine: {machine['cpu']}, {machine['logical_cpus']} CPUs, "
        f"{machine['threads'] or 'default'} threads, {machine['os']}, Python {machine['python']}, "
        f"onnxruntime {machine.get('onnxruntime', 'not installed')}"
    )


def _case(case: Mapping[str, Any]) -> tuple[str, ...]:
    engine, eager = case["engine_ms"], case["eager_ms"]
    return (
        case["name"],
        number_text(engine["p50"]),
        number_text(engine["p90"]),
        number_text(engine["p99"]),
        number_text(eager["p50"] if eager else None),
        number_text(case["speedup"], 3),
        number_text(case["engine_tokens_per_second"]),
    )
