"""Verification as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType

from lepton_compile.cli.output import number_text, table
from lepton_compile.report.page import digits_apart

__all__ = ["percent", "verify_tables"]


def verify_tables(data: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A verification (``VerifyReport.as_dict`` with ``gates``), one table after the other."""
    fed = f"{data['tokens']:,} tokens of {data['sample']}"
    if not data["tokens"]:
        fed = f"{data['segments']} {data['sample']}"
    of = f" for {data['target']}" if data.get("target") else ""
    yield f"{data['precision']} engine{of} against fp32 PyTorch: {fed}"
    rows = [
        (
            output["name"],
            number_text(output["max_abs"], 3),
            number_text(output["mean_abs"], 3),
            number_text(output["relative"], 3),
            number_text(output["cosine"], 6),
            percent(output["argmax_agreement"]),
        )
        for output in data["outputs"]
    ]
    columns = ("output", "max error>", "mean>", "of range>", "cosine>", "argmax>")
    yield table("Outputs: errors, cosine, rows with the same argmax", columns, rows)
    if data.get("perplexity") is not None:
        yield (
            f"Perplexity {data['perplexity']:.4f}, reference {data['reference_perplexity']:.4f} "
            f"({data['perplexity_increase']:+.2%})"
        )
    if data.get("decode_tokens"):
        yield (
            f"Generated {data['decode_tokens']} tokens through the cache: "
            f"{percent(data['decode_agreement'])} are the reference's choice"
        )
    checks = [(c["name"], *_sides(c), _verdict(c)) for c in data.get("gates", ())]
    if checks:
        yield table("Gates", ("number", "found>", "demanded>", "verdict"), checks)


def percent(value: float | None) -> str:
    """A share in percent; a dash for None."""
    return "-" if value is None else f"{value:.2%}"


def _sides(check: Mapping[str, Any]) -> tuple[str, str]:
    found, demanded = check["found"], check["demanded"]
    digits = digits_apart(found, demanded)
    return number_text(found, digits), number_text(demanded, digits)


def _verdict(check: Mapping[str, Any]) -> str:
    return "kept" if check["passed"] else "missed"
