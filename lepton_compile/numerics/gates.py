"""The numbers that a build must reach, checked all at once.

Demands come from the table of tolerances for the precision; the recipe's ``gates`` replace them one
by one. All misses are reported together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lepton_compile.errors import GateError, RecipeError
from lepton_compile.numerics.tolerance import Tolerance
from lepton_compile.numerics.verify_report import VerifyReport

__all__ = ["GateCheck", "check_gates", "enforce", "with_gates"]

AT_MOST = ("max_error", "perplexity", "not_finite")

# Gate -> the number of the report that it limits.
MEASURED = {
    "max_error": "relative_error",
    "argmax": "argmax_agreement",
    "cosine": "cosine",
    "perplexity": "perplexity_increase",
}


@dataclass(frozen=True)
class GateCheck:
    """One demand and what was found.

    Attributes:
        name: what was measured.
        found: the number; None when the task does not have it.
        demanded: the limit.
        passed: whether the number keeps to the limit.
        target: the engine's, where several are checked; else empty.
    """

    name: str
    found: float | None
    demanded: float
    passed: bool
    target: str = ""

    def __str__(self) -> str:
        sign = "<=" if self.name in AT_MOST else ">="
        found = "not measured" if self.found is None else _told(self.found, self.demanded)
        engine = f"{self.target}: " if self.target else ""
        return f"{engine}{self.name} {found}, demanded {sign} {self.demanded:.15g}"

    def as_dict(self) -> dict[str, object]:
        """The check as JSON-ready data."""
        found = self.found if self.found is None or abs(self.found) < float("inf") else None
        return {"name": self.name, "found": found, "demanded": self.demanded, "passed": self.passed}


def with_gates(tolerance: Tolerance, gates: Mapping[str, float | None]) -> Tolerance:
    """The demands with those of a recipe put in their place; ``None`` drops one.

    Raises:
        RecipeError: a gate that does not exist.
    """
    unknown = [name for name in gates if name not in MEASURED]
    if unknown:
        raise RecipeError(
            "there is no such gate",
            where="gates",
            found=", ".join(unknown),
            available=tuple(MEASURED),
        )
    return replace(tolerance, **dict(gates))


def check_gates(report: VerifyReport, tolerance: Tolerance) -> tuple[GateCheck, ...]:
    """Every demand against the report. A demand on a number that was not measured is missed."""
    checks = [_check("not_finite", float(report.not_finite), 0.0)]
    for name, number in MEASURED.items():
        demanded = getattr(tolerance, name)
        if demanded is not None:
            checks.append(_check(name, getattr(report, number), float(demanded)))
    return tuple(checks)


def enforce(checks: Sequence[GateCheck], ways: str = "choose a higher precision") -> None:
    """Raises one GateError that lists every missed demand; returns when there is none.

    Args:
        ways: what would lose less, as the recipe is.
    """
    missed = [check for check in checks if not check.passed]
    if not missed:
        return
    many = "numbers were" if len(missed) > 1 else "number was"
    raise GateError(
        f"{len(missed)} demanded {many} missed",
        where="gates",
        found="; ".join(map(str, missed)),
        hint=f"{ways} under `quantize:`, or relax the demand under `gates:`",
    )


def _told(found: float, demanded: float) -> str:
    """A few digits, or all where the few are the demand's: ``1, demanded >= 1`` tells nobody what
    is missing."""
    few = f"{found:.6g}"
    return repr(found) if float(few) == demanded else few


def _check(name: str, found: float | None, demanded: float) -> GateCheck:
    if found is None:
        return GateCheck(name, None, demanded, passed=False)
    passed = found <= demanded if name in AT_MOST else found >= demanded
    return GateCheck(name, found, demanded, passed)
