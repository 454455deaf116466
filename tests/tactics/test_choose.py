"""From measurements to a kernel: weights of the phases, the margin, the veto of accuracy."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lepton_compile.tactics.choose import choose
from lepton_compile.tactics.phases import Wanted
from tests.tactics.measured import LATENCY, MEMORY, THROUGHPUT, measured


def _timed(**theirs: float) -> dict[str, dict[int, float]]:
    """Our kernel takes 1 ms everywhere, and MatMulNBits so long by rows (``r1=...``)."""
    rows = {1: 1e-3, 8: 1e-3, 128: 1e-3, 512: 1e-3}
    others = {int(name[1:]): seconds for name, seconds in theirs.items()}
    return {"native": rows, "nbits": {**rows, **others}}


@pytest.mark.parametrize(("seconds", "kernel"), [(0.78e-3, "native"), (0.76e-3, "nbits")])
def test_another_kernel_has_to_be_clearly_better(seconds: float, kernel: str) -> None:
    times = _timed(r1=seconds, r128=seconds)
    verdict = choose(measured(seconds=times), LATENCY)
    assert verdict.tactic == kernel
    assert verdict.gains["nbits"] == pytest.approx(1e-3 / seconds)
    assert verdict.certain


def test_the_reason_says_by_how_much() -> None:
    times = _timed(r1=0.5e-3, r128=0.5e-3)
    why = choose(measured(seconds=times), LATENCY).why
    assert why == "measured: MatMulNBits is 2.0 times as fast here"
    assert choose(measured(), LATENCY).why == "none is clearly better"


@pytest.mark.parametrize(
    ("wanted", "times", "kernel"),
    [
        # A reply has 128 calls of one row beside one that reads the prompt.
        (LATENCY, _timed(r128=0.1e-3), "native"),
        (LATENCY, _timed(r1=0.7e-3, r128=5e-3), "nbits"),
        (LATENCY, _timed(r1=0.7e-3, r128=50e-3), "native"),
        # The other objective looks at other rows.
        (THROUGHPUT, _timed(r1=0.1e-3, r128=0.1e-3), "native"),
        (THROUGHPUT, _timed(r8=0.5e-3), "nbits"),
    ],
)
def test_phases_weigh_as_often_as_they_come(
    wanted: Wanted, times: dict[str, dict[int, float]], kernel: str
) -> None:
    assert choose(measured(seconds=times), wanted).tactic == kernel


@pytest.mark.parametrize(
    ("error", "budget", "kernel"),
    [
        (0.012, 0.0, "nbits"),  # about as exact
        (0.013, 0.0, "native"),
        (0.013, 0.02, "nbits"),  # less exact, and the model bears it
        (0.02, 0.02, "nbits"),
        (0.03, 0.02, "native"),
        (math.nan, 0.02, "native"),
        (0.0, 0.0, "nbits"),
    ],
)
def test_a_faster_kernel_that_is_off_by_more_is_not_taken(
    error: float, budget: float, kernel: str
) -> None:
    found = measured(seconds=_timed(r1=1e-4, r128=1e-4), errors={"native": 0.01, "nbits": error})
    verdict = choose(found, replace(LATENCY, budget=budget))
    assert verdict.tactic == kernel
    assert ("nbits" in verdict.vetoed) == (kernel == "native")


def test_the_usual_kernel_is_never_vetoed() -> None:
    """Where none gives numbers to go by, a layer stays what it was."""
    found = measured(seconds=_timed(r1=1e-4), errors={"native": math.nan, "nbits": 0.5})
    verdict = choose(found, LATENCY)
    assert verdict.tactic == "native"
    assert list(verdict.vetoed) == ["nbits"]


def test_a_veto_says_what_was_measured() -> None:
    found = measured(seconds=_timed(r1=1e-4), errors={"native": 0.01, "nbits": 0.0475})
    vetoed = choose(found, LATENCY).vetoed
    assert vetoed == {"nbits": "off by 4.75% of the result, our kernel by 1.00%"}


@pytest.mark.parametrize(("size", "kernel"), [(950, "native"), (500, "nbits")])
def test_memory_counts_bytes_and_no_time(size: int, kernel: str) -> None:
    found = measured(bytes={"native": 1000, "nbits": size}, seconds={"native": {}, "nbits": {}})
    verdict = choose(found, MEMORY)
    assert verdict.tactic == kernel
    if kernel == "nbits":
        assert verdict.why.endswith("MatMulNBits takes 2.0 times less memory")


def test_a_machine_that_is_busy_decides_nothing() -> None:
    found = measured(seconds=_timed(r1=1e-5, r128=1e-5), spread=1.6)
    verdict = choose(found, LATENCY)
    assert verdict.tactic == "native"
    assert not verdict.certain
    assert verdict.why.startswith("the machine was busy: times of a call differed by 1.6 times")


def test_a_kernel_of_ours_that_does_not_run_is_replaced() -> None:
    rows = _timed()["nbits"]
    found = measured(
        usual="nbits",
        seconds={"nbits": rows},
        errors={"nbits": 0.3},
        bytes={"nbits": 10},
        failed={"native": "Illegal instruction"},
    )
    verdict = choose(found, LATENCY)
    assert verdict.tactic == "nbits"
    assert verdict.why == "our kernel does not run here: Illegal instruction"


def test_where_nothing_runs_the_build_goes_on_as_usual() -> None:
    nothing = measured(seconds={}, errors={}, bytes={}, failed={"native": "x", "nbits": "y"})
    verdict = choose(nothing, LATENCY)
    assert (verdict.tactic, verdict.certain) == ("native", False)
