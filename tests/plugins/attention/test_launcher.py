"""The launcher on a driver that only takes notes: what is loaded, and what a launch enqueues."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lepton_plugins.attention.launch import KERNELS, arguments, decode_splits, workspace
from lepton_plugins.attention.launcher import Kernels
from lepton_plugins.attention.source import parameter_types
from lepton_plugins.attention.tiles import tiles_for
from lepton_plugins.attention.variant import Variant
from lepton_plugins.spec import PluginError
from lepton_plugins.toolchain.compile import Compiled
from lepton_plugins.toolchain.store import record, write_folder

PLAIN = Variant("bfloat16", 8, 2, 128)
SINKS = Variant("float16", 4, 1, 64, window=512, sinks=True)
POINTERS = {
    name: 4096 * at
    for at, name in enumerate(
        ("query", "key", "value", "past_lengths", "key_cache", "value_cache", "output"), 1
    )
}
SCRATCH = 1 << 20
SIZES = {"batch": 3, "capacity": 4096}


@dataclass
class Notes:
    """A driver. ``refuses`` names a call, or part of an image, that it does not do."""

    capability_: int = 90
    processors_: int = 132
    refuses: str = ""
    loaded: list[bytes] = field(default_factory=list)
    unloaded: list[Any] = field(default_factory=list)
    functions: list[tuple[Any, str, int]] = field(default_factory=list)
    launches: list[dict[str, Any]] = field(default_factory=list)

    def capability(self) -> int:
        return self.capability_

    def processors(self) -> int:
        return self.processors_

    def load(self, image: bytes) -> Any:
        if self.refuses and self.refuses.encode() in image:
            raise PluginError("the CUDA driver refused cuModuleLoadData", found="NO_BINARY")
        self.loaded.append(image)
        return f"module {len(self.loaded)}"

    def function(self, module: Any, entry: str, shared: int) -> Any:
        if self.refuses == entry:
            raise PluginError("the CUDA driver refused cuModuleGetFunction", found="NOT_FOUND")
        self.functions.append((module, entry, shared))
        return entry

    def launch(
        self,
        function: Any,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        stream: int,
        arguments: Sequence[int],
        sizes: Sequence[int],
    ) -> None:
        if self.refuses == "launch":
            raise PluginError("the CUDA driver refused cuLaunchKernel", found="INVALID_VALUE")
        self.launches.append(
            {
                "function": function,
                "grid": grid,
                "threads": threads,
                "shared": shared,
                "stream": stream,
                "arguments": list(arguments),
                "sizes": list(sizes),
            }
        )

    def unload(self, module: Any) -> None:
        self.unloaded.append(module)


def write(folder: Path, architectures: Sequence[int] = (90,), target: str = "sm_{}") -> Path:
    """A folder as the toolchain writes it, of kernels that hold their own names."""
    files: dict[str, bytes] = {}
    sets = {}
    for variant in (PLAIN, SINKS):
        entries = []
        for arch in architectures:
            for at, kernel in enumerate(KERNELS):
                made = Compiled(
                    entry=KERNELS[kernel].entry,
                    architecture=arch,
                    target=target.format(arch),
                    parameters=tuple(parameter_types(kernel, variant).items()),
                    num_warps=4 + at,
                    shared=1024 * (at + 1),
                    registers=64,
                    spill_bytes=0,
                    ptx=f"ptx {kernel} {arch}",
                    cubin=f"cubin {kernel} {arch}".encode(),
                )
                entry, data = record(made, f"{variant.key}/{kernel}-{arch}")
                tiles = asdict(tiles_for(kernel, arch, variant))
                entries.append({"kernel": kernel, "tiles": tiles, **entry})
                files |= data
        sets[variant.key] = {"variant": variant.as_dict(), "kernels": entries}
    write_folder(folder, {"sets": sets}, files)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "kernels")


def test_a_decode_step_is_two_launches(folder: Path) -> None:
    """Grid, threads, shared memory and every argument in the order of the contract."""
    notes = Notes()
    kernels = Kernels(folder, notes)
    kernels.launch(PLAIN, POINTERS, **SIZES, sequence=2, workspace=SCRATCH, stream=77)
    decode, combine = notes.launches
    tiles = tiles_for("decode", 90, PLAIN)
    splits = decode_splits(PLAIN, tiles, **SIZES, sequence=2, processors=132)
    assert splits > 1, "else the partial results would be of one part"
    lse = SCRATCH + workspace(PLAIN, batch=3, sequence=2, splits=splits).partial_lse
    p = POINTERS
    caches = [p["key_cache"], p["value_cache"]]
    assert decode == {
        "function": "lepton_attention_decode",
        "grid": (splits, 2, 3),  # one tile of 2 * 4 rows for each of two key heads
        "threads": 32 * 6,
        "shared": 1024 * 3,
        "stream": 77,
        "arguments": [
            *(p["query"], p["key"], p["value"], p["past_lengths"], *caches),
            *(2, 4096, splits),
            *(*caches, SCRATCH, lse),
        ],
        "sizes": [8] * 6 + [4] * 3 + [8] * 4,
    }
    assert combine == {
        "function": "lepton_attention_combine",
        "grid": (2 * 4, 2, 3),
        "threads": 32 * 7,
        "shared": 1024 * 4,
        "stream": 77,
        "arguments": [SCRATCH, lse, 2, splits, p["output"]],
        "sizes": [8, 8, 4, 4, 8],
    }


def test_a_prefill_appends_and_needs_no_workspace(folder: Path) -> None:
    notes = Notes()
    pointers = POINTERS | {"sinks": 4}  # any float32 address will do
    Kernels(folder, notes).launch(SINKS, pointers, batch=1, sequence=100, capacity=128)
    append, prefill = notes.launches
    p = pointers
    caches = [p["key_cache"], p["value_cache"]]
    assert (append["function"], prefill["function"]) == (
        *("lepton_attention_append", "lepton_attention_prefill"),
    )
    assert append["arguments"] == [
        *(p["key"], p["value"], p["past_lengths"], *caches, 100, 128, *caches),
    ]
    assert prefill["arguments"] == [
        *(p["query"], p["past_lengths"], *caches, p["sinks"], 100, 128, p["output"]),
    ]
    assert append["grid"] == (-(-100 // tiles_for("append", 90, SINKS).block_m), 1, 1)
    assert prefill["grid"] == (-(-400 // tiles_for("prefill", 90, SINKS).block_m), 1, 1)
    assert (append["stream"], prefill["stream"]) == (0, 0)


@pytest.mark.parametrize(("sequence", "first"), [(16, "decode"), (17, "append")])
def test_the_border_between_the_two(folder: Path, sequence: int, first: str) -> None:
    notes = Notes()
    Kernels(folder, notes).launch(PLAIN, POINTERS, **SIZES, sequence=sequence, workspace=SCRATCH)
    assert notes.launches[0]["function"] == KERNELS[first].entry


def test_every_argument_has_its_type_in_the_contract(folder: Path) -> None:
    """Eight bytes for an address, four for a number: what the driver copies."""
    notes = Notes()
    kernels = Kernels(folder, notes)
    for sequence in (1, 64):
        kernels.launch(PLAIN, POINTERS, **SIZES, sequence=sequence, workspace=SCRATCH)
    of = {KERNELS[name].entry: name for name in KERNELS}
    assert len(notes.launches) == 4
    for launch in notes.launches:
        names = arguments(of[launch["function"]], PLAIN)
        wide = [name in POINTERS or name.startswith(("present", "partial")) for name in names]
        assert launch["sizes"] == [8 if each else 4 for each in wide]


def test_kernels_are_loaded_once_and_given_back(folder: Path) -> None:
    notes = Notes()
    with Kernels(folder, notes) as kernels:
        assert notes.loaded == [], "nothing before it is asked for"
        kernels.prepare(PLAIN)
        assert notes.loaded == [f"cubin {kernel} 90".encode() for kernel in KERNELS]
        kernels.launch(PLAIN, POINTERS, **SIZES, sequence=1, workspace=SCRATCH)
        kernels.launch(PLAIN, POINTERS, **SIZES, sequence=64)
        assert len(notes.loaded) == len(KERNELS)
        assert [shared for _, _, shared in notes.functions] == [1024, 2048, 3072, 4096]
    assert notes.unloaded == [f"module {at}" for at in range(1, 5)]
    kernels.close()
    assert len(notes.unloaded) == 4


def test_the_workspace_is_what_a_launch_uses(folder: Path) -> None:
    kernels = Kernels(folder, Notes())
    splits = kernels.splits(PLAIN, **SIZES, sequence=2)
    wanted = workspace(PLAIN, batch=3, sequence=2, splits=splits)
    assert kernels.workspace_bytes(PLAIN, **SIZES, sequence=2) == wanted.size
    assert wanted.size >= wanted.partial_lse + 3 * 8 * 2 * splits * 4
    assert kernels.workspace_bytes(PLAIN, **SIZES, sequence=17) == 0


def test_a_smaller_workspace_limits_the_parts(folder: Path) -> None:
    notes, asked = Notes(), []

    def most(*sizes: int) -> int:
        asked.append(sizes)
        return 2

    kernels = Kernels(folder, notes)
    kernels.launch(PLAIN, POINTERS, **SIZES, sequence=1, workspace=SCRATCH, most_splits=most)
    assert asked == [(3, 1, 4096)]
    assert [launch["grid"][0] for launch in notes.launches] == [2, 4]


def test_a_small_device_cuts_less(folder: Path) -> None:
    small, large = (Kernels(folder, Notes(processors_=n)) for n in (16, 132))
    sizes = {**SIZES, "sequence": 1}
    assert small.splits(PLAIN, **sizes) < large.splits(PLAIN, **sizes)


def test_machine_code_that_the_driver_cannot_read_gives_way_to_ptx(folder: Path) -> None:
    notes = Notes(refuses="cubin")
    Kernels(folder, notes).prepare(PLAIN)
    assert notes.loaded == [f"ptx {kernel} 90\0".encode() for kernel in KERNELS]


def test_a_later_device_gets_ptx(tmp_path: Path) -> None:
    notes = Notes(capability_=103)
    Kernels(write(tmp_path / "kernels", (80, 90)), notes).prepare(PLAIN)
    assert notes.loaded == [f"ptx {kernel} 90\0".encode() for kernel in KERNELS]


def test_a_device_without_kernels_is_named(tmp_path: Path) -> None:
    """Code that is bound to one architecture runs on no later one."""
    folder = write(tmp_path / "kernels", (90,), "sm_{}a")
    with pytest.raises(PluginError, match="no kernels for this device") as raised:
        Kernels(folder, Notes(capability_=120)).prepare(PLAIN)
    assert raised.value.found == "compute capability 12.0"
    assert raised.value.available == ("9.0",)


def test_when_one_kernel_fails_none_stays_loaded(folder: Path) -> None:
    notes = Notes(refuses="lepton_attention_decode")
    kernels = Kernels(folder, notes)
    with pytest.raises(PluginError, match="cuModuleGetFunction"):
        kernels.prepare(PLAIN)
    assert sorted(notes.unloaded) == ["module 1", "module 2", "module 3"]
    notes.refuses = ""
    kernels.prepare(PLAIN)
    assert len(notes.loaded) == 3 + len(KERNELS)


@pytest.mark.parametrize(
    ("changes", "message", "found"),
    [
        ({"pointers": {"key": 0}}, "a tensor is missing", "key"),
        ({"pointers": {"query": 4104, "value": 8}}, "not a multiple of 16", "query, value"),
        ({"workspace": 0}, "needs a workspace", "bytes"),
        ({"workspace": SCRATCH + 8}, "not a multiple of 16", "partial, partial_lse"),
        ({"batch": 65536}, "sizes out of range", '"batch": 65536'),
        ({"capacity": 0}, "sizes out of range", '"capacity": 0'),
    ],
)
def test_what_cannot_be_launched_is_refused_by_name(
    folder: Path, changes: dict[str, Any], message: str, found: str
) -> None:
    """Before anything was enqueued."""
    notes = Notes()
    given = {**SIZES, "sequence": 1, "workspace": SCRATCH, **changes}
    pointers = POINTERS | given.pop("pointers", {})
    with pytest.raises(PluginError, match=message) as raised:
        Kernels(folder, notes).launch(PLAIN, pointers, **given)
    assert found in str(raised.value.found)
    assert notes.launches == []


def test_sinks_are_asked_for_only_where_there_are_some(folder: Path) -> None:
    kernels = Kernels(folder, Notes())
    with pytest.raises(PluginError, match="a tensor is missing") as raised:
        kernels.launch(SINKS, POINTERS, **SIZES, sequence=1, workspace=SCRATCH)
    assert raised.value.found == "sinks"


def test_the_words_of_the_driver_arrive(folder: Path) -> None:
    with pytest.raises(PluginError, match="cuLaunchKernel") as raised:
        Kernels(folder, Notes(refuses="launch")).launch(
            PLAIN, POINTERS, **SIZES, sequence=1, workspace=SCRATCH
        )
    assert raised.value.found == "INVALID_VALUE"


def test_a_variant_that_was_not_compiled_is_named(folder: Path) -> None:
    asked = replace(PLAIN, window=7)
    with pytest.raises(PluginError, match="no kernels were compiled") as raised:
        Kernels(folder, Notes()).prepare(asked)
    assert json.loads(str(raised.value.found)) == asked.as_dict()
    assert len(raised.value.available) == 2


def test_a_damaged_kernel_is_not_loaded(folder: Path) -> None:
    notes = Notes()
    (folder / PLAIN.key / "prefill-90.cubin").write_bytes(b"other code")
    with pytest.raises(PluginError, match="damaged") as raised:
        Kernels(folder, notes).prepare(PLAIN)
    assert raised.value.found == hashlib.sha256(b"other code").hexdigest()
    assert notes.unloaded == ["module 1"]


def test_kernels_of_another_contract_are_refused(folder: Path) -> None:
    index = json.loads((folder / "kernels.json").read_text("utf-8"))
    parameters = index["sets"][PLAIN.key]["kernels"][0]["parameters"]
    parameters.append(["dropout", "i32"])
    (folder / "kernels.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(PluginError, match="another version of the launch contract") as raised:
        Kernels(folder, Notes()).prepare(PLAIN)
    assert str(raised.value.found).endswith("dropout")
