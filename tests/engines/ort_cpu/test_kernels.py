"""Engines with kernels of our own: when they get them, and what that asks of a machine."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import lepton_compile as lc
from lepton_compile.cli import main
from lepton_compile.engines.ort_cpu.kernels import kernels_for
from lepton_compile.errors import EngineError
from lepton_compile.recipe import load_recipe
from lepton_compile.runtime.loader_guard import LoaderError, UnfitError
from lepton_plugins.native import LIBRARY
from lepton_plugins.spec import CPU_DOMAIN as DOMAIN
from lepton_plugins.toolchain.cxx import find_compiler
from tests.plugins.cpu_library import needs_library
from tests.small import llama, saved

IDS = [5, 17, 3, 42, 8]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = llama(vocab_size=96, tie_word_embeddings=True)
    return saved("LlamaForCausalLM", config, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def native(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("native") / "out"
    return lc.build(model=str(folder), quantize="int4", output=out, verify=False).path


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    find_compiler.cache_clear()
    yield
    find_compiler.cache_clear()


def _domains(path: Path) -> set[tuple[str, str]]:
    graph = onnx.load(path / "engines/ort-cpu/model.onnx", load_external_data=False).graph
    return {(node.domain, node.op_type) for node in graph.node}


@needs_library
def test_the_engine_carries_its_library(native: Path) -> None:
    manifest = json.loads((native / "manifest.json").read_text())
    (engine,) = manifest["engines"]
    assert engine["kernels"]["library"] == LIBRARY
    assert engine["kernels"]["features"] == ["avx2", "fma", "f16c"]
    assert f"engines/ort-cpu/{LIBRARY}" in engine["files"]
    assert f"engines/ort-cpu/{LIBRARY}" in manifest["files"]
    ours = {op for domain, op in _domains(native) if domain == DOMAIN}
    assert ours == {
        *("QuantizedLinear", "QuantizedEmbedding", "GroupQueryAttention"),
        *("Normalization", "SkipNormalization"),
    }
    assert "register_kernels" in (native / "loader.py").read_text()
    assert f"{LIBRARY} for Linux on x86_64 with avx2, fma, f16c" in (
        (native / "report.html").read_text()
    )


@needs_library
def test_inspect_names_the_machine(native: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(native)]) == 0
    assert "Linux x86_64" in " ".join(capsys.readouterr().out.split())


@needs_library
@pytest.mark.parametrize("quantize", ["int4", "int8"])
def test_both_kinds_of_kernels_say_nearly_the_same(
    folder: Path, tmp_path: Path, quantize: str
) -> None:
    logits = []
    for kernels in ("native", "builtin"):
        made = lc.build(
            model=str(folder), quantize=quantize, kernels=kernels, output=tmp_path / kernels
        )
        assert made.manifest.engines[0]["executed"] is True
        with lc.load(made.path) as model:
            logits.append(model.logits(IDS).ravel())
            decoded = model.generate(IDS, max_new_tokens=4)
            assert len(decoded.tokens) == 4
    ours, theirs = logits
    cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
    assert cosine > 0.9995
    assert not (tmp_path / "builtin/engines/ort-cpu" / LIBRARY).exists()
    assert {domain for domain, _ in _domains(tmp_path / "builtin")} == {"", "com.microsoft"}


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        ({"quantize": "int8", "kernels": "builtin"}, False),
        ({"quantize": "none"}, False),
        ({"quantize": "int8", "target": "ort-cuda"}, False),
        ({"quantize": "int8"}, True),
        ({"quantize": "int4", "target": ["ort-cuda", "ort-cpu"]}, True),
    ],
)
@needs_library
def test_who_gets_them(recipe: dict[str, Any], wanted: bool) -> None:
    decided = kernels_for(load_recipe({"model": "./m", **recipe}))
    assert decided.native is wanted
    assert decided.remark == ""


def test_without_a_compiler_those_of_onnxruntime_serve(
    folder: Path, tmp_path: Path, no_compiler: None
) -> None:
    made = lc.build(model=str(folder), quantize="int8", output=tmp_path / "out", verify=False)
    assert "kernels" not in made.manifest.engines[0]
    assert DOMAIN not in {domain for domain, _ in _domains(made.path)}
    remarks = json.loads((made.path / "report.json").read_text())["remarks"]
    assert any("no kernels of our own" in each for each in remarks)


def test_what_is_demanded_and_cannot_be_is_an_error(
    folder: Path, tmp_path: Path, no_compiler: None
) -> None:
    with pytest.raises(EngineError) as caught:
        lc.build(model=str(folder), quantize="int8", kernels="native", output=tmp_path / "out")
    assert caught.value.where == "kernels"
    assert caught.value.found
    assert list(tmp_path.iterdir()) == []


@needs_library
def test_a_compiler_that_declines_is_quoted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiler = find_compiler()
    assert compiler is not None
    monkeypatch.setenv("CXX", f"{compiler.command[0]} -include /nowhere/at/all.h")
    find_compiler.cache_clear()
    with pytest.raises(EngineError, match="the C\\+\\+ compiler declines") as caught:
        lc.build(model=str(folder), quantize="int8", output=tmp_path / "out", verify=False)
    find_compiler.cache_clear()
    assert "/nowhere/at/all.h" in str(caught.value.found)
    assert not (tmp_path / "out").exists()


@needs_library
def test_another_machine_is_told(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises((UnfitError, LoaderError), match="its kernels are for Linux on x86_64"):
        lc.load(native)


@needs_library
def test_a_library_that_may_not_run_is_told_with_the_way_out(
    native: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is mounted noexec."""

    class Options(onnxruntime.SessionOptions):
        def register_custom_ops_library(self, path: str) -> None:
            raise RuntimeError(f"{Path(path).name}: failed to map segment from shared object")

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    said = rf"{LIBRARY} does not load \(kernels: builtin needs none\): {LIBRARY}: failed to map"
    with pytest.raises(LoaderError, match=said):
        lc.load(native)


@needs_library
@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_a_damaged_library_is_never_opened(native: Path, tmp_path: Path, damage: str) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(native, copy)
    library = copy / "engines/ort-cpu" / LIBRARY
    if damage == "flip":
        data = bytearray(library.read_bytes())
        data[len(data) // 2] ^= 1
        library.write_bytes(data)
    else:
        library.unlink()
    with pytest.raises(LoaderError, match=LIBRARY):
        lc.load(copy)


@pytest.mark.parametrize("kernels", ["auto", "builtin"])
def test_scores_of_a_text_are_its_own_where_columns_fit_no_block(
    kernels: str, tmp_path: Path
) -> None:
    """What was left for such a layer of a decoder rounded all rows of a call with one scale."""
    odd = llama(intermediate_size=200)
    folder = saved("LlamaForCausalLM", odd, tmp_path / "model")
    options: dict[str, Any] = {"kernels": kernels, "tactics": "default", "check": False}
    built = lc.build(
        model=str(folder), quantize="int8", output=tmp_path / "out", verify=False, **options
    )
    ids = np.random.default_rng(0).integers(1, 99, (4, 9))
    with lc.load(built, threads=1) as model:
        together, alone = model.logits(ids), model.logits(ids[:1])
    np.testing.assert_allclose(together[:1], alone, rtol=0, atol=1e-4)  # it was off by 6e-3
