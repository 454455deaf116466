"""Every kernel for every architecture: it assembles, spills nothing, and is for that device.

A set that covers each kernel, architecture, width, cache and flag at least once, and what once
spilled, is compiled each time. Every width with a quantized cache and every flag takes longer: it
is compiled where a kernel's key is not the one under which it was last found without spills,
because its source, its tiles or Triton changed. ``python -m tests.plugins.attention.test_compiled``
compiles all and writes the keys down.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lepton_plugins.attention import compiled
from lepton_plugins.attention.compiled import compile_kernel, kernel_key, write_kernels
from lepton_plugins.attention.index import KernelIndex
from lepton_plugins.attention.launch import KERNELS, arguments
from lepton_plugins.attention.tiles import ARCHITECTURES, tiles_for
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.compile import Compiled
from lepton_plugins.toolchain.ptx import entry_of
from lepton_plugins.toolchain.store import cache_folder

pytest.importorskip("triton")

Asked = tuple[str, int, Variant]
REGISTERS_OF_A_BLOCK = 65536
FOUND = Path(__file__).with_name("kernels_without_spills.json")


def variant(
    head_dim: int, cache: str = "", dtype: str = "bfloat16", *, all_: bool = False
) -> Variant:
    """Two groups of four heads; ``all_``: window, softcap and sinks."""
    scales = {"key_scale": 0.05, "value_scale": 0.04} if cache else {}
    flags = {"window": 512, "softcap": 30.0, "sinks": True} if all_ else {}
    return Variant(dtype, 8, 2, head_dim, cache, **scales, **flags)


FP8 = "float8_e4m3fn"
COVERING: list[Asked] = [
    ("append", 86, variant(64, dtype="float16")),
    ("append", 90, variant(256, FP8)),
    ("append", 120, variant(512, "int8")),
    ("prefill", 80, variant(192)),
    ("prefill", 86, variant(64, "int8", "float16", all_=True)),
    ("prefill", 89, variant(128, FP8, all_=True)),
    ("prefill", 90, variant(48)),
    ("prefill", 90, variant(64, all_=True)),
    ("prefill", 90, variant(128)),
    ("prefill", 90, variant(256, all_=True)),
    ("prefill", 90, variant(224, "int8", all_=True)),
    ("prefill", 90, variant(256, "int8", all_=True)),
    ("prefill", 90, variant(320, "int8")),
    ("prefill", 100, variant(128, dtype="float16")),
    ("prefill", 120, variant(512, all_=True)),
    ("decode", 80, variant(512)),
    ("decode", 86, variant(256, "int8")),
    ("decode", 89, variant(64, FP8, "float16")),
    ("decode", 90, variant(256, all_=True)),
    ("decode", 90, variant(128)),
    ("decode", 100, variant(128, all_=True)),
    ("decode", 120, variant(80, "int8", all_=True)),
    ("combine", 80, variant(512)),
    ("combine", 90, variant(256, all_=True)),
    ("combine", 120, variant(128, dtype="float16")),
]
# The most crowded form of each: a quantized cache, and every flag.
PRODUCT: list[Asked] = [
    (kernel, arch, variant(width, cache, all_=True))
    for (arch, cache), width, kernel in itertools.product(
        ((80, "int8"), (89, FP8), (90, "int8"), (120, "int8")),
        (64, 80, 128, 192, 224, 256, 320, 512),
        ("prefill", "decode"),
    )
]


def name(asked: Asked) -> str:
    kernel, arch, of = asked
    flags = "-all" if of.sinks else ""
    return f"{kernel}-{arch}-{of.head_dim}-{of.dtype}-{of.cache_dtype}{flags}"


@pytest.fixture(scope="session")
def kept() -> Path:
    """Where builds keep kernels by the digest of their source and tools: a run that changes neither
    compiles one anew, which must come out as the one that is kept."""
    return cache_folder()


def check(asked: Asked, made: Compiled) -> None:
    """What holds of every kernel, whatever it is for."""
    kernel, arch, of = asked
    assert made.spill_bytes == 0, f"{name(asked)} spills {made.spill_bytes} bytes: see tiles.py"
    assert 0 < made.registers <= 255
    assert made.registers * 32 * made.num_warps <= REGISTERS_OF_A_BLOCK, "no block could start"
    assert made.shared <= ARCHITECTURES[arch].shared_bytes
    assert made.target in (f"sm_{arch}", f"sm_{arch}a")
    assert re.findall(r"^\.target (\w+)", made.ptx, re.MULTILINE) == [made.target]
    assert re.search(r"^\.version 8\.7$", made.ptx, re.MULTILINE), "drivers since CUDA 12.8 read it"
    assert made.cubin.startswith(b"\x7fELF")
    assert [each for each, _ in made.parameters] == list(arguments(kernel, of))
    entry, declared = entry_of(made.ptx)
    assert (entry, len(declared)) == (KERNELS[kernel].entry, len(made.parameters))


@pytest.mark.parametrize("asked", COVERING, ids=name)
def test_a_kernel_spills_nothing_and_is_for_its_device(
    asked: Asked, kept: Path, record_property: pytest.RecordProperty
) -> None:
    kernel, arch, of = asked
    made = compile_kernel(kernel, of, arch, cache=kept)
    record_property("registers", made.registers)
    check(asked, made)


@pytest.mark.slow
@pytest.mark.parametrize("asked", PRODUCT, ids=name)
def test_every_kernel_spills_nothing(asked: Asked, kept: Path) -> None:
    kernel, arch, of = asked
    if json.loads(FOUND.read_text()).get(name(asked)) == kernel_key(kernel, of, arch):
        pytest.skip(f"the very kernel that {FOUND.name} says was found without spills")
    check(asked, compile_kernel(kernel, of, arch, cache=kept))


def test_a_kernel_of_other_tiles_or_sources_has_another_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ("decode", variant(128), 90)
    key, tiles = kernel_key(*asked), tiles_for("decode", 90, variant(128))
    assert kernel_key(*asked, tiles) == key
    others = {kernel_key(*asked, replace(tiles, num_stages=tiles.num_stages + 1))}
    monkeypatch.setattr(compiled, "_sources_digest", lambda: "other")
    others.add(kernel_key(*asked))
    assert len(others | {key}) == 3


def test_the_covering_set_covers() -> None:
    kernels, architectures, variants = zip(*COVERING, strict=True)
    assert set(kernels) == set(KERNELS)
    for kernel in ("prefill", "decode"):
        assert {arch for each, arch, _ in COVERING if each == kernel} == set(ARCHITECTURES)
        assert {64, 128, 256, 512} <= {of.head_dim for each, _, of in COVERING if each == kernel}
    assert {of.dtype for of in variants} == {"bfloat16", "float16"}
    assert {of.cache_dtype for of in variants} >= {"int8", FP8}
    assert set(architectures) == set(ARCHITECTURES)


def test_prefill_on_hopper_is_what_it_was_written_for(kept: Path) -> None:
    """Both operands of the tensor cores in shared memory, and keys on their way ahead of time."""
    made = compile_kernel("prefill", variant(128), 90, cache=kept)
    assert made.target == "sm_90a"
    for instruction in ("wgmma.mma_async", "cp.async", "ex2.approx", "fma.rn.f32"):
        assert instruction in made.ptx, instruction


@pytest.mark.parametrize("arch", [80, 90])
def test_decode_reads_ahead_and_runs_on_later_devices(arch: int, kept: Path) -> None:
    made = compile_kernel("decode", variant(128 if arch == 90 else 512), arch, cache=kept)
    assert made.target == f"sm_{arch}", "bound to no single architecture"
    assert "cp.async" in made.ptx
    assert "mma.sync" in made.ptx


def test_a_kernel_comes_out_alike_each_time(kept: Path, tmp_path: Path) -> None:
    asked = ("append", variant(64, dtype="float16"), 86)
    assert compile_kernel(*asked, cache=tmp_path) == compile_kernel(*asked, cache=kept)


def test_what_compiles_a_kernel_is_in_its_key() -> None:
    """Else one that is kept would stand for what another assembler's flags make."""
    folder = Path(compiled.__file__).parent
    named = {(folder / name).resolve() for name in compiled._SOURCES}
    assert {Path(compiled.__file__), folder / "kernels.py"} <= named
    tools = (folder.parent / "toolchain" / "compile.py").resolve()
    used = re.findall(r"^from lepton_plugins\.toolchain\.(\w+)", tools.read_text(), re.MULTILINE)
    assert {tools, *(tools.with_name(f"{name}.py") for name in used)} <= named
    assert used


def test_fp8_is_refused_where_no_instruction_converts_it(kept: Path) -> None:
    with pytest.raises(PluginError, match="cannot convert fp8") as raised:
        compile_kernel("decode", variant(128, FP8), 86, cache=kept)
    assert raised.value.found == "compute capability 8.6"
    assert "89" in raised.value.available
    assert "int8" in str(raised.value.hint)


def test_a_folder_holds_what_was_compiled(kept: Path, tmp_path: Path) -> None:
    """Each kernel's cost is in the index, and its bytes are those of the compiler."""
    asked, told = variant(64, dtype="float16"), []
    index = write_kernels(
        tmp_path / "kernels", [asked], [86], cache=kept, step=lambda *step: told.append(step)
    )
    assert told == [("kernels for compute capability 8.6", 0, 1)]
    (entry,) = index["sets"].values()
    read = KernelIndex(tmp_path / "kernels")
    assert read.variants == (asked,)
    entries, native = read.for_device(asked, 86)
    assert native
    assert [each["kernel"] for each in entry["kernels"]] == list(KERNELS) == list(entries)
    for kernel, each in entries.items():
        made = compile_kernel(kernel, asked, 86, cache=kept)
        assert read.read(each["cubin"]) == made.cubin
        assert (each["registers"], each["spill_bytes"]) == (made.registers, 0)


def test_a_refused_variant_leaves_no_folder(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="fp8"):
        write_kernels(tmp_path / "kernels", [variant(128, FP8)], [86], cache=kept)
    assert not (tmp_path / "kernels").exists()


if __name__ == "__main__":
    for each in PRODUCT:
        check(each, compile_kernel(each[0], each[2], each[1]))
    keys = {name(each): kernel_key(each[0], each[2], each[1]) for each in PRODUCT}
    FOUND.write_text(json.dumps(keys, indent=1, sort_keys=True) + "\n", encoding="utf-8")
