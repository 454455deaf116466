"""The child process: what it builds, how it is stopped, and each way in which it can fail."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from lepton_compile.engines.tensorrt import process
from lepton_compile.engines.tensorrt.flavour import RTX
from lepton_compile.engines.tensorrt.process import CHILD, run_child
from lepton_compile.errors import EngineError
from tests.engines.tensorrt.orders import ATTENTION, SIMPLE, graph, order_for, profile

pytest.importorskip("tensorrt_rtx")

ADD = "main (float16[b, 64] x) => (float16[b, 64] y) {{ {} }}"


def children() -> list[psutil.Process]:
    """Child processes of ours that build."""
    return [p for p in psutil.Process().children() if CHILD in " ".join(p.cmdline())]


def test_it_builds_and_says_what_it_does(tmp_path: Path) -> None:
    steps: list[str] = []
    events: list[str] = []
    built = run_child(
        order_for(tmp_path, graph(SIMPLE)),
        RTX,
        step=lambda what, done, total: steps.append(what),
        look=lambda event: events.append(event["event"]),
    )
    assert built["bytes"] == (tmp_path / "model.plan").stat().st_size
    assert built["peak_memory"] > 50 << 20
    assert set(built["seconds"]) == {"load", "parse", "build"}
    assert steps[:2] == ["loading the library", "reading the graph"]
    assert steps[-1].startswith("writing the plan")
    assert events.count("network") == 1
    assert events[-1] == "built"
    assert children() == []


def test_the_builder_keeps_its_memory_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of two settings holds in glibc, so what a user wrote stands behind ours."""
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    seen: list[str] = []

    def step(what: str, done: int, total: int) -> None:
        if what == "reading the graph":
            (child,) = children()
            # glibc writes zeros between the settings while it reads them.
            found = Path(f"/proc/{child.pid}/environ").read_bytes().replace(b"\0", b":")
            seen.extend(each for each in found.decode().split(":") if "glibc.malloc." in each)

    run_child(order_for(tmp_path, graph(SIMPLE)), RTX, step=step)
    assert [each.rpartition("glibc.malloc.")[2] for each in seen] == [
        "hugetlb=1",
        "mmap_threshold=268435456",
        "trim_threshold=4294967296",
        "top_pad=67108864",
        "hugetlb=0",
    ]


def test_a_callback_that_raises_cancels(tmp_path: Path) -> None:
    seen: list[int] = []

    def step(what: str, done: int, total: int) -> None:
        if what == "reading the graph":
            seen.extend(child.pid for child in children())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(order_for(tmp_path, graph(SIMPLE)), RTX, step=step)
    assert len(seen) == 1
    assert not psutil.pid_exists(seen[0])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "was killed, most likely for want of memory"),
        (signal.SIGABRT, "ended with SIGABRT"),
    ],
)
def test_a_child_that_dies_is_an_error(tmp_path: Path, number: signal.Signals, words: str) -> None:
    def look(event: dict[str, Any]) -> None:
        if event["event"] == "network":
            for child in children():
                os.kill(child.pid, number)

    with pytest.raises(EngineError, match=words):
        run_child(order_for(tmp_path, graph(SIMPLE)), RTX, look=look)
    assert children() == []


def test_a_ceiling_of_memory_holds_for_the_child_too(tmp_path: Path) -> None:
    ours = psutil.Process().memory_info().rss
    with pytest.raises(EngineError, match="more memory than its ceiling") as raised:
        run_child(order_for(tmp_path, graph(SIMPLE)), RTX, limit=ours + (1 << 20))
    assert "the builder's process included" in str(raised.value)
    assert children() == []


@pytest.mark.parametrize("padding", [0, 64 << 20])
def test_a_builder_without_memory_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: int
) -> None:
    """Without padding an allocation fails; with it what comes next, the stack of a thread."""
    monkeypatch.setenv("GLIBC_TUNABLES", f"glibc.malloc.hugetlb=0:glibc.malloc.top_pad={padding}")

    def step(what: str, done: int, total: int) -> None:
        if what == "reading the graph":
            (child,) = children()
            most = child.memory_info().vms + (1 << 20)
            child.rlimit(resource.RLIMIT_AS, (most, most))

    with pytest.raises(EngineError, match="the builder ran out of memory") as raised:
        run_child(order_for(tmp_path, graph(SIMPLE)), RTX, step=step)
    assert "make room" in str(raised.value.hint)
    assert [each.name for each in tmp_path.glob("*.plan") if each.stat().st_size] == []


def test_a_child_that_stops_working_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(event: dict[str, Any]) -> None:
        if event["event"] == "network":
            for child in children():
                child.suspend()

    monkeypatch.setattr(process, "STILL", 1.0)
    with pytest.raises(EngineError, match="has stopped working") as raised:
        run_child(order_for(tmp_path, graph(SIMPLE)), RTX, look=look)
    assert "no processor time in 1 seconds" in str(raised.value.found)
    assert children() == []


def test_what_the_parser_refuses_is_named_with_its_layer(tmp_path: Path) -> None:
    model = graph(ADD.format("y = com.microsoft.QuickGelu (x)"), QuickGelu="model.layers.3/act")
    with pytest.raises(EngineError, match="QuickGelu cannot be imported") as raised:
        run_child(order_for(tmp_path, model), RTX)
    assert raised.value.where == "model.layers.3/act"
    assert "model.layers.3/act (QuickGelu)" in str(raised.value.found)


def test_a_plugin_that_nobody_registered_is_an_error_and_no_abort(tmp_path: Path) -> None:
    model = graph(ADD.format('y = lepton.Unheard <plugin_version = "1"> (x)'), Unheard="l.0/op")
    with pytest.raises(EngineError, match="Unheard cannot be imported") as raised:
        run_child(order_for(tmp_path, model), RTX)
    assert raised.value.where == "l.0/op"
    assert "lepton-compile plugins" in str(raised.value.hint)


def test_what_the_builder_refuses_comes_with_its_own_words(tmp_path: Path) -> None:
    wide = ATTENTION.replace("float16", "float")
    text = f"{wide} {{ y = trt.TRT_Attention (q, k, v) }}"
    with pytest.raises(EngineError, match="the builder refused the network") as raised:
        run_child(order_for(tmp_path, graph(text)), RTX)
    assert "not supported by a dedicated kernel" in str(raised.value.found)


def test_a_range_that_runs_backwards_is_refused(tmp_path: Path) -> None:
    model = graph(SIMPLE)
    order = order_for(tmp_path, model, profiles=[profile(model, batch=(4, 2, 1))])
    with pytest.raises(EngineError, match="refuses the profile all") as raised:
        run_child(order, RTX)
    assert raised.value.where == "shapes"
    assert "for input tensors x" in str(raised.value.found)
    assert "cudaError" not in str(raised.value.found)


def test_a_range_of_another_rank_is_refused(tmp_path: Path) -> None:
    model = graph(SIMPLE)
    asked = profile(model)
    asked.opt["x"] = [2, 64, 1]
    with pytest.raises(EngineError, match="refuses the profile all"):
        run_child(order_for(tmp_path, model, profiles=[asked]), RTX)


def test_an_input_without_a_range_is_named(tmp_path: Path) -> None:
    model = graph(SIMPLE)
    asked = profile(model)
    asked.max["other"] = asked.max.pop("x")
    with pytest.raises(EngineError, match="says nothing about the input x") as raised:
        run_child(order_for(tmp_path, model, profiles=[asked]), RTX)
    assert list(raised.value.available) == ["other"]


def test_a_gpu_that_the_library_does_not_know(tmp_path: Path) -> None:
    order = order_for(tmp_path, graph(SIMPLE), capabilities=["9.0"])
    with pytest.raises(EngineError, match=r"no engine for compute capability 9\.0") as raised:
        run_child(order, RTX)
    assert "SM89" in raised.value.available


def test_a_library_that_is_not_there(tmp_path: Path) -> None:
    order = order_for(tmp_path, graph(SIMPLE), module="tensorrt_nowhere", libraries="")
    with pytest.raises(EngineError, match="the library does not load") as raised:
        run_child(order, RTX)
    assert "tensorrt_nowhere" in str(raised.value.found)
    assert RTX.install in str(raised.value.hint)


def test_a_plan_that_cannot_be_written(tmp_path: Path) -> None:
    order = order_for(tmp_path, graph(SIMPLE), plan=str(tmp_path / "nowhere" / "model.plan"))
    with pytest.raises(EngineError, match="the builder failed") as raised:
        run_child(order, RTX)
    assert "nowhere" in str(raised.value.found)


def test_a_plan_that_fills_the_disk(tmp_path: Path) -> None:
    """A limit on the size of a file does what a disk without space does."""
    order = order_for(tmp_path, graph(SIMPLE))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, hard))
    try:
        with pytest.raises(EngineError, match="the plan could not be written") as raised:
            run_child(order, RTX)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.found == "File too large"
    assert "free some space" in str(raised.value.hint)


def test_attention_that_is_named_by_its_layer(tmp_path: Path) -> None:
    model = graph(f'{ATTENTION} {{ y = trt.TRT_Attention (q, k, v, "", "", n) }}')
    network: dict[str, Any] = {}
    run_child(
        order_for(tmp_path, model), RTX, look=lambda e: network.update(e) if "layers" in e else None
    )
    assert network["counts"]["ATTENTION_INPUT"] == 1
    (layer,) = [each for each in network["layers"] if each["type"] == "ATTENTION_INPUT"]
    assert layer["precision"] == "HALF"
    assert sum(tensor is not None for tensor in layer["inputs"]) == 4
    assert network["inputs"][0]["shape"] == ["b", 4, "s", 64]
