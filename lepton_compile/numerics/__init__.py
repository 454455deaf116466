"""Numbers about an engine: how close it is to the reference, and how fast.

Importing this needs numpy alone; torch and the engine's runtime are imported by the calls that use
them.
"""

from __future__ import annotations

from lepton_compile.numerics.bench import BenchReport, bench
from lepton_compile.numerics.gates import GateCheck, check_gates, enforce, with_gates
from lepton_compile.numerics.metrics import Agreement, Comparison, Difference, Perplexity
from lepton_compile.numerics.tolerance import TOLERANCES, Tolerance, tolerance_for
from lepton_compile.numerics.verify import verify
from lepton_compile.numerics.verify_report import OutputReport, VerifyReport

__all__ = [
    "TOLERANCES",
    "Agreement",
    "BenchReport",
    "Comparison",
    "Difference",
    "GateCheck",
    "OutputReport",
    "Perplexity",
    "Tolerance",
    "VerifyReport",
    "bench",
    "check_gates",
    "enforce",
    "tolerance_for",
    "verify",
    "with_gates",
]
