"""The header of a plan, read from plans that the library wrote."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from lepton_compile.engines.tensorrt.flavour import RTX
from lepton_compile.engines.tensorrt.plan_header import (
    LENGTH,
    PlanHeader,
    check_header,
    read_header,
)
from lepton_compile.engines.tensorrt.process import run_child
from lepton_compile.errors import EngineError
from tests.engines.tensorrt.orders import SIMPLE, graph, order_for

pytest.importorskip("tensorrt_rtx")

NAMED = ["8.6", "8.9"]
VERSION = metadata.version(RTX.package)


def built(folder: Path, capabilities: list[str]) -> bytes:
    run_child(order_for(folder, graph(SIMPLE), capabilities=capabilities), RTX)
    return (folder / "model.plan").read_bytes()


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A plan for two GPUs."""
    return built(tmp_path_factory.mktemp("plan"), NAMED)


def test_it_names_version_and_gpus(plan: bytes) -> None:
    assert read_header(plan) == PlanHeader(VERSION, tuple(NAMED), portable=False)
    check_header(plan[:LENGTH], VERSION, NAMED)


def test_a_plan_without_gpus_is_portable(tmp_path: Path) -> None:
    found = read_header(built(tmp_path, []))
    assert found == PlanHeader(VERSION, ("8.0", "8.6", "8.9", "12.0", "12.1"), portable=True)
    check_header((tmp_path / "model.plan").read_bytes(), VERSION, [])


@pytest.mark.parametrize("change", [lambda b: b"PK" + b[2:], lambda b: b[:20], lambda b: b""])
def test_a_damaged_plan_has_none(plan: bytes, change) -> None:  # type: ignore[no-untyped-def]
    assert read_header(change(plan)) is None
    with pytest.raises(EngineError, match="what was built is no plan"):
        check_header(change(plan), VERSION, NAMED)


def test_a_plan_of_another_version(plan: bytes) -> None:
    other = plan[:24] + bytes((1, 6, 0, 1)) + plan[28:]
    with pytest.raises(EngineError, match="made by another version") as raised:
        check_header(other, VERSION, NAMED)
    assert (raised.value.found, list(raised.value.available)) == ("1.6.0.1", [VERSION])


def test_a_plan_for_other_gpus(plan: bytes) -> None:
    with pytest.raises(EngineError, match="for other GPUs than asked for") as raised:
        check_header(plan, VERSION, ["12.0"])
    assert raised.value.found == "8.6, 8.9"
