"""What the builder measured is kept from build to build, and never costs a plan."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lepton_compile.engines.tensorrt.flavour import RTX
from lepton_compile.engines.tensorrt.process import run_child
from lepton_compile.errors import EngineError
from tests.engines.tensorrt.orders import SIMPLE, graph, order_for

pytest.importorskip("tensorrt_rtx")


def build(folder: Path, cache: Path) -> list[str]:
    """Build with a timing cache; the lines of the log."""
    (folder / "model.plan").unlink(missing_ok=True)
    built = run_child(order_for(folder, graph(SIMPLE), timing_cache=str(cache)), RTX)
    assert (folder / "model.plan").stat().st_size == built["bytes"]
    return [text for _, text in built["log"]]


def test_it_is_made_under_its_digest_and_read_again(tmp_path: Path) -> None:
    cache = tmp_path / "kept" / "timing.cache"
    build(tmp_path, cache)
    data = cache.read_bytes()
    assert hashlib.sha256(data[32:]).digest() == data[:32]
    build(tmp_path, cache)
    assert [each.name for each in cache.parent.iterdir()] == ["timing.cache"]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b""])
def test_a_damaged_one_is_named_before_native_code_reads_it(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    cache = tmp_path / "timing.cache"
    build(tmp_path, cache)
    cache.write_bytes(damage(cache.read_bytes()))
    with pytest.raises(EngineError, match="the timing cache is damaged") as raised:
        build(tmp_path, cache)
    assert raised.value.where == str(cache)
    assert f"rm '{cache}'" in str(raised.value.hint)
    assert not (tmp_path / "model.plan").exists()


def test_one_that_cannot_be_kept_costs_no_plan(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lines = build(tmp_path, tmp_path / "file" / "timing.cache")
    assert any("the timing cache could not be kept" in line for line in lines)
