"""Gates: defaults per precision, a recipe's own, all misses at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lepton_compile.errors import GateError, RecipeError, UsageError
from lepton_compile.numerics.gates import GateCheck, check_gates, enforce, with_gates
from lepton_compile.numerics.metrics import Comparison
from lepton_compile.numerics.tolerance import TOLERANCES, Tolerance, family_of, tolerance_for
from lepton_compile.numerics.verify_report import OutputReport, VerifyReport


def report(error: float = 0.0, **changes: object) -> VerifyReport:
    comparison = Comparison()
    reference = np.linspace(0.0, 1.0, 8).reshape(2, 4)
    comparison.update(reference, reference + error)
    made = VerifyReport(
        task="text-generation",
        precision="fp32",
        sample="made up",
        segments=1,
        tokens=8,
        outputs=(OutputReport("logits", comparison.result(), 1.0, 2),),
        perplexity=10.0,
        reference_perplexity=10.0,
    )
    return dataclasses.replace(made, **changes)


def test_an_exact_engine_passes_every_default() -> None:
    for precision in TOLERANCES:
        enforce(check_gates(report(), tolerance_for(precision, "text-generation")))


def test_every_miss_is_listed_with_found_and_demanded() -> None:
    bad = report(error=0.1, perplexity=11.0)
    with pytest.raises(GateError) as caught:
        enforce(check_gates(bad, tolerance_for("fp32", "text-generation")))
    assert caught.value.exit_code == 3
    assert "2 demanded numbers" in caught.value.message
    assert "max_error 0.1, demanded <= 0.001" in str(caught.value.found)
    assert "perplexity 0.1, demanded <= 0.001" in str(caught.value.found)


@pytest.mark.parametrize(("perplexity", "passes"), [(10.59, True), (10.61, False)])
def test_int4_may_raise_perplexity_by_six_percent(perplexity: float, passes: bool) -> None:
    checks = check_gates(report(perplexity=perplexity), tolerance_for("int4", "text-generation"))
    assert all(check.passed for check in checks) is passes


def test_a_recipe_replaces_one_demand_and_keeps_the_others() -> None:
    tolerance = with_gates(tolerance_for("fp32", "text-generation"), {"max_error": 0.5})
    assert tolerance.max_error == 0.5
    assert tolerance.argmax == 1.0
    enforce(check_gates(report(error=0.1), tolerance))


def test_an_unknown_gate_names_the_known_ones() -> None:
    with pytest.raises(RecipeError) as caught:
        with_gates(Tolerance(), {"speed": 1.0})
    assert "cosine" in caught.value.available


def test_a_demand_on_what_was_not_measured_is_missed() -> None:
    checks = check_gates(report(perplexity=None), Tolerance(perplexity=0.1))
    assert [str(check) for check in checks if not check.passed] == [
        "perplexity not measured, demanded <= 0.1"
    ]


def test_a_check_tells_the_engine_and_the_side_of_the_limit() -> None:
    check = GateCheck("cosine", 0.5, 0.9, passed=False, target="trt-rtx")
    assert str(check) == "trt-rtx: cosine 0.5, demanded >= 0.9"


def test_a_near_miss_does_not_look_like_the_demand() -> None:
    told = str(GateCheck("cosine", 1 - 2**-27, 1.0, passed=False))
    assert told == "cosine 0.9999999925494194, demanded >= 1"
    told = str(GateCheck("cosine", 0.99, 0.9999999, passed=False))
    assert told == "cosine 0.99, demanded >= 0.9999999"


@pytest.mark.parametrize("found", [np.inf, -np.inf, np.nan, None])
def test_a_report_has_no_number_that_json_cannot_write(found: float | None) -> None:
    assert GateCheck("max_error", found, 0.1, passed=False).as_dict()["found"] is None
    assert GateCheck("max_error", 0.2, 0.1, passed=False).as_dict()["found"] == 0.2


def test_infinite_outputs_miss_even_without_demands() -> None:
    comparison = Comparison()
    comparison.update(np.ones((1, 2)), np.array([[1.0, np.nan]]))
    bad = report(outputs=(OutputReport("logits", comparison.result()),))
    with pytest.raises(GateError, match="1 demanded number was missed"):
        enforce(check_gates(bad, Tolerance()))


def test_decoding_counts_towards_agreement() -> None:
    assert report(decode_agreement=0.5, decode_tokens=4).argmax_agreement == 0.5


def test_families_and_unknown_precision() -> None:
    assert family_of("fill-mask") == "classifier"
    assert tolerance_for("none", "feature-extraction") == tolerance_for(
        "fp32", "feature-extraction"
    )
    with pytest.raises(UsageError) as caught:
        tolerance_for("int3", "fill-mask")
    assert caught.value.found == "int3"
