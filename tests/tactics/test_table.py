"""The table of a build: what is measured, what is kept, what is said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.tactics.clock import Clock
from lepton_compile.tactics.measure import SMALLEST, Bench, Measured
from lepton_compile.tactics.phases import Wanted
from lepton_compile.tactics.store import Store
from lepton_compile.tactics.table import Tactics, described
from lepton_passes.lowering.ort.choices import Choice, Layer
from lepton_plugins.linear.spec import ACTIVATIONS
from tests.tactics.measured import LATENCY, MACHINE, THROUGHPUT, measured

UP, DOWN = Layer(640, 2048, 4, 32, decoder=True), Layer(2048, 640, 4, 32, decoder=True)
SMALL = Layer(64, 64, 4, 32, decoder=True)
HALF = dict.fromkeys((1, 8, 128, 512), 5e-05)
FASTER = measured(seconds={**measured().seconds, "nbits": HALF})
WHY = "measured: MatMulNBits is 2.0 times as fast here"


@dataclass(frozen=True)
class _Recorded(Bench):
    """A bench whose measurements were written down; it counts what it is asked for."""

    found: dict[Layer, Measured] = field(default_factory=dict)
    asked: list[Layer] = field(default_factory=list)

    def measure(self, layer: Layer, rows: Sequence[int], clock: Clock) -> Measured:
        self.asked.append(layer)
        return self.found[layer]


def _bench(**found: Measured) -> _Recorded:
    table = {"up": UP, "down": DOWN}
    return _Recorded(Path("none"), 2, found={table[name]: each for name, each in found.items()})


def _tactics(folder: Path, bench: Bench | None, **changes: Any) -> Tactics:
    wanted: Wanted = changes.pop("wanted", LATENCY)
    return Tactics(MACHINE, wanted, Store(folder, MACHINE), bench, **changes)


def test_each_layer_is_measured_once_on_a_machine(tmp_path: Path) -> None:
    bench = _bench(up=FASTER, down=measured())
    first, second = _tactics(tmp_path, bench), _tactics(tmp_path, bench)
    chosen = first([UP, DOWN])
    assert chosen == {
        UP: Choice("nbits", WHY),
        DOWN: Choice("native", "none is clearly better"),
    }
    assert second([DOWN, UP]) == chosen
    assert bench.asked == [UP, DOWN]
    assert first.remarks() == second.remarks() == []


@pytest.mark.parametrize("change", [{"exact": True}, {"wanted": THROUGHPUT}])
def test_what_was_measured_otherwise_is_measured_again(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    bench = _bench(up=measured())
    for each in (_tactics(tmp_path, bench), _tactics(tmp_path, bench, **change)):
        each([UP])
    assert bench.asked == [UP, UP]
    _tactics(tmp_path, bench)([UP])
    assert bench.asked == [UP, UP]


def test_another_budget_chooses_anew_from_the_same_figures(tmp_path: Path) -> None:
    off = replace(FASTER, errors={"native": 0.01, "nbits": 0.02})
    bench = _bench(up=off)
    strict = _tactics(tmp_path, bench)([UP])
    lax = _tactics(tmp_path, bench, wanted=replace(LATENCY, budget=0.03))([UP])
    assert (strict[UP].kernel, lax[UP].kernel) == ("native", "nbits")
    assert bench.asked == [UP]


def test_a_busy_machine_is_asked_again_the_next_time(tmp_path: Path) -> None:
    bench = _bench(up=replace(FASTER, spread=3.0))
    first = _tactics(tmp_path, bench)
    assert first([UP])[UP].kernel == "native"
    assert first.remarks() == [
        "the usual kernels for 1 kind of layers: the machine was too busy to time others"
    ]
    bench.found[UP] = FASTER
    assert _tactics(tmp_path, bench)([UP])[UP].kernel == "nbits"


def test_what_was_kept_without_the_rows_that_count_is_measured_again(tmp_path: Path) -> None:
    bench = _bench(up=measured())
    _tactics(tmp_path, bench)([UP])
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    (entry,) = document["layers"].values()
    del entry["seconds"]["nbits"]["128"]
    path.write_text(json.dumps(document))
    assert _tactics(tmp_path, bench)([UP])[UP].kernel == "native"
    assert bench.asked == [UP, UP]


def test_small_layers_are_left_alone(tmp_path: Path) -> None:
    assert SMALL.columns * SMALL.rows < SMALLEST
    tactics = _tactics(tmp_path, _bench())
    assert tactics([SMALL]) == {}
    assert tactics.entry() is None
    assert tactics.remarks() == []
    assert tactics.report()["unmeasured"] == [
        {"layer": described(SMALL), "reason": "too small to be timed"}
    ]


def test_nothing_runs_where_there_is_a_reason_not_to(tmp_path: Path) -> None:
    asked: list[str] = []

    def why_not() -> str:
        asked.append("why")
        return "timing kernels needs about 0.20 GB"

    bench = _bench(up=FASTER, down=measured())
    tactics = _tactics(tmp_path, bench, why_not=why_not)
    assert tactics([UP, DOWN]) == {}
    assert (asked, bench.asked) == (["why"], [])
    assert tactics.remarks() == [
        "the usual kernels for 2 kinds of layers: timing kernels needs about 0.20 GB"
    ]
    _tactics(tmp_path, bench)([UP, DOWN])
    assert _tactics(tmp_path, bench, why_not=why_not)([UP])[UP].kernel == "nbits"
    assert asked == ["why"], "what is known needs no room"


def test_a_plan_measures_nothing(tmp_path: Path) -> None:
    _tactics(tmp_path, _bench(up=FASTER))([UP])
    plan = _tactics(tmp_path, None)
    assert plan([UP, DOWN]) == {UP: Choice("nbits", WHY)}
    (remark,) = plan.remarks()
    assert "1 kind of layers: none was ever timed on this machine" in remark


def test_progress_names_each_layer(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    bench = _bench(up=measured(), down=measured())
    _tactics(tmp_path, bench, step=lambda *step: steps.append(step))([UP, DOWN])
    assert steps == [
        ("kernels for 640 to 2048, 4 bits by 32, decoder", 0, 2),
        ("kernels for 2048 to 640, 4 bits by 32, decoder", 1, 2),
    ]


def test_the_manifest_has_choices_and_no_times(tmp_path: Path) -> None:
    bench = _bench(up=FASTER, down=measured())
    fresh, kept = _tactics(tmp_path, bench), _tactics(tmp_path, bench)
    other = _tactics(tmp_path / "x", _bench(up=replace(FASTER, spread=1.1), down=measured()))
    for each in (fresh, kept, other):
        each([UP, DOWN])
    entry = fresh.entry()
    assert entry == kept.entry() == other.entry()
    assert entry is not None
    layers = entry.pop("layers")
    assert [(each["columns"], each["kernel"]) for each in layers] == [
        (640, "nbits"),
        (2048, "native"),
    ]
    assert layers[0].keys() == {*UP.__dataclass_fields__, "kernel"}
    assert entry == {
        "processor": "Processor 9000",
        "features": ["avx2", "fma"],
        "onnxruntime": "1.32.0",
        "objective": "latency",
        "rows": [1, 128],
    }


def test_the_report_has_everything(tmp_path: Path) -> None:
    off = replace(FASTER, errors={"native": 0.01, "nbits": 0.5}, failed={"dynamic": "no such op"})
    tactics = _tactics(tmp_path, _bench(up=FASTER, down=off))
    tactics([UP, DOWN, SMALL])
    report = json.loads(json.dumps(tactics.report()))
    first, second = report["layers"]
    assert report["machine"] == MACHINE.as_dict()
    assert (first["kernel"], first["usual"], first["why"]) == ("nbits", "native", WHY)
    assert first["candidates"][1]["seconds"]["128"] == HALF[128]
    assert first["candidates"][1]["gain"] == pytest.approx(2)
    assert second["kernel"] == "native"
    assert "off by 50.00%" in second["candidates"][1]["vetoed"]
    assert second["failed"] == [{"name": "DynamicQuantizeMatMul", "reason": "no such op"}]


def test_different_layers_have_different_names() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"columns": 64},
        {"rows": 64},
        {"bits": 8},
        {"bits": 8, "group": None},
        {"group": 64},
        {"activation": ACTIVATIONS["silu"]},
        {"activation": ACTIVATIONS["silu"], "gated": 1},
        {"tied": True},
        {"decoder": False},
    ]
    names = {described(replace(UP, **change)) for change in changes}
    assert len(names) == len(changes)
    assert described(Layer(384, 1536, 8, None, ACTIVATIONS["gelu"])) == "384 to 1536, 8 bits, gelu"
