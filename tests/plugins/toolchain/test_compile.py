"""From Triton source to machine code, on kernels of a few lines."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain import compile as module
from lepton_plugins.toolchain.compile import Source, compile_source
from lepton_plugins.toolchain.ptx import entry_of

pytest.importorskip("triton")

KERNELS = """
import triton
import triton.language as tl

@triton.jit
def scale(numbers, factor, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(numbers + at, tl.load(numbers + at) * factor + count)

@triton.jit
def multiply(a, b, out, count, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    sums = tl.zeros([BLOCK, BLOCK], tl.float32)
    for step in range(count):
        here = step * BLOCK * BLOCK + at
        sums = tl.dot(tl.load(a + here), tl.load(b + here), sums)
    tl.store(out + at, sums)

@triton.jit
def unknown(numbers, BLOCK: tl.constexpr):
    tl.store(numbers, tl.frobnicate(BLOCK))
"""
SHARED = 232448


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Triton reads a kernel's text from its file."""
    path = tmp_path_factory.mktemp("kernels") / "small_kernels.py"
    path.write_text(KERNELS, "utf-8")
    spec = importlib.util.spec_from_file_location("small_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules["small_kernels"] = made
    spec.loader.exec_module(made)
    yield made
    del sys.modules["small_kernels"]


def scale(source: Any) -> Source:
    parameters = {"numbers": "*fp32", "factor": "fp32", "count": "i32"}
    return Source(source.scale, parameters, {"BLOCK": 512}, ["numbers"], 4, 1)


def multiply(source: Any) -> Source:
    parameters = {"a": "*bf16", "b": "*bf16", "out": "*fp32", "count": "i32"}
    return Source(source.multiply, parameters, {"BLOCK": 128}, ["a", "b", "out"], 8, 3)


def test_what_comes_out(source: Any) -> None:
    """The contract's parameters only, one kernel, and what it costs."""
    made = compile_source(scale(source), 90, SHARED)
    assert (made.entry, made.architecture, made.target) == ("scale", 90, "sm_90")
    assert made.parameters == (("numbers", "*fp32"), ("factor", "fp32"), ("count", "i32"))
    assert len(entry_of(made.ptx)[1]) == 3
    assert (made.num_warps, made.spill_bytes) == (4, 0)
    assert made.cubin.startswith(b"\x7fELF")
    assert "ld.global.v4" in made.ptx, "four numbers at once: the address is known to be aligned"


def test_an_address_that_is_not_aligned_is_read_number_by_number(source: Any) -> None:
    made = compile_source(replace(scale(source), aligned=[]), 90, SHARED)
    assert "ld.global.v4" not in made.ptx


def test_code_that_needs_one_architecture_says_so(source: Any) -> None:
    hopper, ampere = (compile_source(multiply(source), arch, SHARED) for arch in (90, 80))
    assert (hopper.target, ampere.target) == ("sm_90a", "sm_80")
    assert "wgmma" in hopper.ptx
    assert "wgmma" not in ampere.ptx
    assert hopper.shared >= 2 * 2 * 128 * 128 * 2


def test_a_block_that_does_not_fit_is_refused(source: Any) -> None:
    """With the number that Triton gives, not what a driver would say later."""
    needed = compile_source(multiply(source), 80, SHARED).shared
    with pytest.raises(PluginError, match="more shared memory than there is") as raised:
        compile_source(multiply(source), 80, needed - 1)
    assert raised.value.where == "multiply, compute capability 8.0"
    assert raised.value.found == f"{needed} bytes"
    assert raised.value.available == (f"{needed - 1} bytes",)


def test_nothing_of_this_machine_is_in_the_code(source: Any) -> None:
    made = compile_source(scale(source), 80, SHARED)
    folder = str(Path(source.__file__).parent)
    assert folder not in made.ptx
    assert folder.encode() not in made.cubin
    assert made == compile_source(scale(source), 80, SHARED)


def test_ptx_is_assembled_once(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By us: Triton does not assemble what is changed before it counts, nor keeps our hook."""
    from triton import knobs
    from triton.backends.nvidia.compiler import CUDABackend

    def assembled(*_: Any) -> bytes:
        raise AssertionError("Triton assembles, too")

    monkeypatch.setattr(CUDABackend, "make_cubin", assembled)
    assert compile_source(scale(source), 80, SHARED).cubin.startswith(b"\x7fELF")
    assert knobs.runtime.add_stages_inspection_hook is None


def test_the_words_of_triton_arrive(source: Any) -> None:
    asked = Source(source.unknown, {"numbers": "*fp32"}, {"BLOCK": 16}, ["numbers"], 4, 1)
    with pytest.raises(PluginError, match="triton declines") as raised:
        compile_source(asked, 80, SHARED)
    assert "frobnicate" in str(raised.value.found)


def test_without_triton_it_is_said_what_to_install(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", absent)
    with pytest.raises(PluginError, match="compiled by triton") as raised:
        compile_source(scale(source), 80, SHARED)
    assert "plugins" in str(raised.value.hint)
