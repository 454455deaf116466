"""The report as one HTML page. Every value is escaped: names come from models and recipes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from lepton_compile.report.engines import engine_sections
from lepton_compile.report.refusals import refusal_groups
from lepton_compile.report.tactics import tactic_sections

__all__ = ["digits_apart", "render", "render_number"]

DOUBLE = 17
"""Digits that tell any two numbers of Python apart."""


def render(data: Mapping[str, Any]) -> str:
    """The page for a report (``report_data``)."""
    page: str = _template().render(
        report=data,
        capture=_capture(data["capture"]),
        tiles=_tiles(data),
        refusals=refusal_groups(data["passes"]),
        engines=engine_sections(data),
        tactics=tactic_sections(data.get("tactics") or ()),
    )
    return page


@cache
def _template() -> Any:
    """Compiled once: it takes longer than to fill it in, a tenth of the build of a tiny model."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_read),
    )
    environment.filters.update(size=_size, number=render_number, percent=_percent, seconds=_seconds)
    environment.globals["digits_apart"] = digits_apart
    return environment.get_template("report.html.jinja")


def _read(name: str) -> str:
    return files("lepton_compile.report").joinpath(name).read_text(encoding="utf-8")


def _tiles(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The headline numbers: label, value, remark."""
    tiles = [("Size", _size(data["bytes"]), f"{len(data['files'])} files")]
    verify = data["verify"]
    if verify and verify["perplexity"] is not None:
        change = verify["perplexity_increase"]
        tiles.append(
            ("Perplexity", f"{verify['perplexity']:.3f}", f"{change:+.2%} against fp32 PyTorch")
        )
    elif verify:
        tiles.append(("Cosine", render_number(verify["cosine"], 6), "to fp32 PyTorch"))
    if verify:
        # Of scores alone: the report's own number is the lowest, of what was generated too.
        rates = [output["argmax_agreement"] for output in verify["outputs"]]
        found = [rate for rate in rates if rate is not None]
        if found:
            tiles.append(("Same argmax", _percent(min(found)), "of rows of scores"))
        tiles.append(
            ("Largest error", render_number(verify["relative_error"], 3), "of the output range")
        )
    tiles.append(("Build", _seconds(data["seconds"]), "wall time of the stages below"))
    return tiles


def _capture(capture: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the graph was made, in words, as the documentation has them."""
    words = {"how": "traced", "kinds": "kinds of layers", "base": "recipe's folder"}
    hows = {
        "stamped": "each kind of layer once, which is stamped for all of its kind",
        "whole": "the model as a whole",
        "plain": "the model as a whole, attention as its own code has it",
        "imported": "not at all: this is an ONNX file",
    }
    said = {**capture, "how": hows.get(capture.get("how", ""), capture.get("how"))}
    return [(words.get(name, name), _said(value)) for name, value in said.items() if value]


def _said(value: object) -> str:
    return "; ".join(value) if isinstance(value, list | tuple) else str(value)


def _size(value: float) -> str:
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def render_number(value: float | None, digits: int = 4) -> str:
    """A number in few characters, large ones without an exponent."""
    if value is None:
        return "not finite"
    whole = isinstance(value, int) or abs(value) >= 10**digits - 0.5  # where :g has an exponent
    return f"{round(value):,}" if whole else f"{value:.{digits}g}"


def digits_apart(found: float | None, demanded: float) -> int:
    """How many digits of two numbers to show, so that those which differ are seen to: what misses
    a demand by little would look as if it had been met."""
    digits = 5
    if found is not None and found != demanded:
        while digits < DOUBLE and f"{found:.{digits}g}" == f"{demanded:.{digits}g}":
            digits += 1
    return digits


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _seconds(value: float) -> str:
    if value < 0.001:
        return "< 1 ms"
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"
