"""Measurements as a machine might have made them."""

from __future__ import annotations

from typing import Any

from lepton_compile.tactics.machine import Machine
from lepton_compile.tactics.measure import Measured
from lepton_compile.tactics.phases import Phase, Wanted

__all__ = ["LATENCY", "MACHINE", "MEMORY", "THROUGHPUT", "measured"]

MACHINE = Machine("Processor 9000", ("avx2", "fma"), "1.32.0", "ab" * 32)
LATENCY = Wanted("latency", (Phase("write", 1, 128), Phase("read", 128, 1)), 0.0)
THROUGHPUT = Wanted("throughput", (Phase("write", 8, 128), Phase("read", 512, 2)), 0.0)
MEMORY = Wanted("memory", (), 0.0)


def measured(**changes: Any) -> Measured:
    """Our kernel beside MatMulNBits, as fast, as exact and as large."""
    rows = dict.fromkeys((1, 8, 128, 512), 0.0001)
    whole: dict[str, Any] = {
        "usual": "native",
        "seconds": {"native": rows, "nbits": rows},
        "errors": {"native": 0.01, "nbits": 0.01},
        "bytes": {"native": 1000, "nbits": 1000},
    }
    return Measured(**{**whole, **changes})
