"""The catalog: one name, one stem, one class, one test; and the order that its comments claim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from lepton_passes.catalog import CATALOG, Entry, names
from lepton_passes.quant.calibration import Calibration
from lepton_passes.quant.scaled import ScaledEnergies
from lepton_passes.settings import Settings

ROOT = Path(__file__).parent
STAGES = ("cleanup", "fusion", "lowering", "quant")
PREFIXES = ("fuse-", "lower-")


@pytest.mark.parametrize("entry", CATALOG, ids=names())
def test_name_class_file_and_test_agree(entry: Entry) -> None:
    *folders, stem = entry.make.__module__.removeprefix("lepton_passes.").split(".")
    name = entry.name
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    # Passes for TensorRT say so in their names; those for ONNX Runtime are the default.
    family = folders[1] if len(folders) > 1 else ""
    assert name.removeprefix(f"{family}-").replace("-", "_") == stem
    assert entry.make.__name__ == "".join(part.title() for part in entry.name.split("-"))
    assert folders[0] == entry.stage
    assert ROOT.joinpath(*folders, f"test_{stem}.py").is_file()


@pytest.mark.parametrize("entry", CATALOG, ids=names())
def test_a_pass_describes_itself(entry: Entry) -> None:
    assert entry.stage in STAGES
    assert entry.make.summary
    assert set(entry.make.tolerances) == {"fp32", "int8", "int4"}
    assert entry.make.__doc__


def test_names_are_unique() -> None:
    assert len(set(names())) == len(CATALOG)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("share-nodes", "lower-cached-attention"),
        ("split-packed", "sink-transpose"),
        ("sink-transpose", "merge-reshape"),
        ("weight-int4-weighted", "weight-int4"),
        ("weight-int4", "packed-qkv"),
        ("merge-reshape", "weight-stored"),
        ("weight-stored", "scale-inputs"),
        ("merge-reshape", "scale-inputs"),
        ("scale-inputs", "calibrate"),
        ("scale-inputs", "quantize-cache"),
        ("merge-reshape", "calibrate"),
        ("calibrate", "smooth-inputs"),
        ("calibrate", "quantize-cache"),
        ("quantize-cache", "weight-int8"),
        ("quantize-cache", "lower-trt-static-cache"),
        ("smooth-inputs", "weight-int8"),
        ("weight-int8", "activation-int8"),
        ("weight-fp8", "activation-fp8"),
        ("activation-int8", "packed-qkv"),
        ("activation-fp8", "lower-half-precision"),
        ("packed-qkv", "lower-cached-attention"),
        ("lower-skip-norm", "lower-linear"),
        ("lower-native-head-norm", "lower-last-layer"),
        ("lower-last-layer", "lower-normed-sum"),
        ("lower-last-layer", "lower-native-experts"),
        ("lower-native-experts", "lower-rounded-attention"),
        ("lower-native-linear", "lower-rounded-attention"),
        ("lower-last-layer", "lower-linear"),
        ("lower-last-layer", "lower-trt-static-cache"),
        ("lower-bias-gelu", "lower-linear"),
        ("lower-linear", "lower-embedding"),
        ("lower-half-precision", "lower-trt-static-cache"),
        ("lower-trt-static-cache", "lower-trt-cached-attention"),
    ],
)
def test_order(first: str, second: str) -> None:
    assert names().index(first) < names().index(second)


def test_legality_is_the_end() -> None:
    assert CATALOG[-1].make.must_not_refuse


def test_nothing_is_quantized_unless_chosen() -> None:
    made = [e.instance(Settings()) for e in CATALOG if e.stage == "quant"]
    assert set(made) == {None}
    everything = Settings(
        choose=lambda *_: None,
        hessians={},
        energies=ScaledEnergies({}),
        calibration=Calibration(),
        cache=ir.DataType.INT8,
    )
    fp8 = replace(everything, eight=ir.DataType.FLOAT8E4M3FN)
    for entry in (e for e in CATALOG if e.stage == "quant"):
        in_int8, in_fp8 = (entry.instance(each) is not None for each in (everything, fp8))
        assert in_int8 == (not entry.name.endswith("fp8")), entry.name
        assert in_fp8 == (not entry.name.endswith("int8") and entry.name != "smooth-inputs")


def test_the_readme_lists_every_pass() -> None:
    text = (ROOT.parent.parent / "passes" / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    expected = [
        f"| `{e.name}` | {e.stage} | {e.make.summary} | {e.make.counts_as or ''} |" for e in CATALOG
    ]
    assert [" ".join(r.split()) for r in rows] == [" ".join(r.split()) for r in expected]
