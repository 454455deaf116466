"""The emitted file: every name in it is defined, and what it cannot run here it passes over."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.runtime.emit import loader_source
from tests.runtime import plans, tiny

TARGETS = ("ort-cpu", "ort-cuda", "trt-rtx", "trt")
CHOICES = [*chain.from_iterable(combinations(TARGETS, n) for n in range(1, 5))]


def undefined(source: str) -> str:
    """What a linter says about names that are used and defined nowhere."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F811", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout if done.returncode else ""


def test_the_check_sees_an_undefined_name() -> None:
    assert "ctypes" in undefined("def f() -> None:\n    ctypes.CDLL('x')\n")


@pytest.mark.parametrize("targets", CHOICES, ids="+".join)
def test_every_name_is_defined(targets: tuple[str, ...]) -> None:
    assert not undefined(loader_source(targets))


def imported(file: Path) -> Any:
    """The emitted file as a module of its own."""
    spec = importlib.util.spec_from_file_location("emitted_loader", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_driver_the_emitted_file_takes_the_engine_for_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cuda.bindings")
    if has_driver():
        pytest.skip("there is a driver here")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", plans.module("tensorrt_rtx", None))
    made = tiny.decoder(tmp_path / "both", plans={"trt-rtx": (plans.decoder_plan(), {})})
    with imported(made.path / "loader.py").load(made.path, threads=1) as model:
        assert model.target == "ort-cpu"
        assert "there is no NVIDIA driver here" in model.passed_over["trt-rtx"]
        assert model.generate([2, 7, 9], max_new_tokens=2).finish


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
