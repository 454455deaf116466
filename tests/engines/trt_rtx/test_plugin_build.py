"""Models whose attention is the plugin's, from a folder to an artifact, as a user builds them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from lepton_compile.cli import main
from lepton_compile.cli.artifact_view import build_lines
from tests.export.harness import save
from tests.export.zoo import _DECODER

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("triton")

SIZES = {**_DECODER, "head_dim": 32}
GEMMA2 = {"attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 32, "sliding_window": 4}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
MODELS: dict[str, Any] = {
    "gemma2": lambda: transformers.Gemma2Config(**SIZES, **GEMMA2),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SIZES, sliding_window=4, layer_types=MIXED),
    "llama": lambda: transformers.LlamaConfig(**SIZES),
}
# model, form -> (forms of the layers, sets of kernels)
BUILDS = {
    ("gemma2", "auto"): ({"plugin": 3}, 2),
    ("gemma3", "auto"): ({"mask": 2, "native": 1}, 0),
    ("gemma3", "plugin"): ({"plugin": 3}, 2),
    ("llama", "plugin"): ({"plugin": 3}, 1),
}
# What a loader does with the plugin of an artifact, up to where it would need a GPU.
REGISTER = """
import json, sys
from pathlib import Path
from lepton_compile.engines.tensorrt.child.library import load
from lepton_compile.runtime.loader_trt_plugin import registered
root = Path(sys.argv[1])
manifest = json.loads((root / "manifest.json").read_text())
trt = load("tensorrt_rtx", "tensorrt_rtx_libs", Path(sys.argv[2]))
made = registered(trt, root, manifest, manifest["engines"][0])
creator = trt.get_plugin_registry().get_creator("CachedAttention", "1", "lepton")
print(json.dumps([creator is not None, len(made.kernels.index.variants)]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built artifacts; the kernels are where all builds of this user keep them."""
    return tmp_path_factory.mktemp("plugin")


def build(folder: Path, model: str, form: str) -> Path:
    """The artifact of a tiny random model for compute capability 8.9."""
    output = folder / f"{model}-{form}"
    if output.is_dir():
        return output
    if not (folder / model).is_dir():
        save(MODELS[model], "text-generation", folder / model)
    recipe = folder / "recipe.yaml"
    lines = [
        f"model: {folder / model}",
        "target: trt-rtx",
        "quantize: bf16",
        f"attention: {form}",
        "compute_capabilities: ['8.9']",
        "shapes: {batch: 1..2, sequence: 1..32}",
    ]
    recipe.write_text("\n".join(lines))
    assert main(["build", str(recipe), "-o", str(output), "--no-check", "-q"]) == 0
    return output


@pytest.mark.parametrize(("model", "form"), BUILDS)
def test_the_artifact_carries_the_plugin_that_its_plan_asks_for(
    folder: Path, model: str, form: str
) -> None:
    root = build(folder, model, form)
    manifest = json.loads((root / "manifest.json").read_text())
    (entry,) = manifest["engines"]
    forms, sets = BUILDS[model, form]
    assert entry["attention"] == {"layers": 3, "forms": forms}
    assert entry["executed"] is False
    names = [f"{layer}.{kind}" for layer in range(3) for kind in ("key", "value")]
    assert entry["aliases"] == {f"present.{n}": f"past_key_values.{n}" for n in names}
    lies = root / "engines/trt-rtx/plugin"
    if not sets:
        assert (entry["plugin"], lies.exists()) == (None, False)
        return
    assert entry["plugin"] == {
        "name": "CachedAttention",
        "namespace": "lepton",
        "version": "1",
        "folder": "plugin",
        "architectures": ["8.9"],
    }
    written = [p.relative_to(root).as_posix() for p in lies.rglob("*") if p.is_file()]
    assert len(written) == 2 + sets * 4 * 2, "the source, the index, code and PTX of four kernels"
    assert {*written} < {*entry["files"]}
    for name in written:
        assert manifest["files"][name]["sha256"] == _sha256(root / name)
    report = json.loads((root / "report.json").read_text())
    assert report["builders"]["trt-rtx"]["counts"]["PLUGIN_V3"] == 3


def test_caches_of_several_capacities_are_profiles_of_one_plan(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(folder, "llama", "plugin")  # saves the model and compiles the kernels
    output = folder / "rooms"
    named = ["--model", str(folder / "llama"), "--target", "trt-rtx", "--quantize", "bf16"]
    more = ["--set", "compute_capabilities=['8.9']", "--no-check", "-q"]
    rooms = ["--set", "shapes={batch: 1..2, cache: [8, 32]}"]
    assert main(["build", *named, *more, *rooms, "-o", str(output)]) == 0
    (entry,) = json.loads((output / "manifest.json").read_text())["engines"]
    assert entry["cache"]["buckets"] == [8, 32]
    assert entry["cache"]["capacity"] == 32
    assert entry["attention"] == {"layers": 3, "forms": {"plugin": 3}}
    found = {
        p["name"]: (p["max"]["input_ids"], p["min"]["past_key_values.0.key"][2])
        for p in entry["profiles"]
    }
    assert found == {
        "prefill-8": ([1, 8], 8),
        "decode-8": ([2, 1], 8),
        "prefill-32": ([1, 32], 32),
        "decode-32": ([2, 1], 32),
    }
    assert "def grow" in (output / "loader.py").read_text()
    assert main(["inspect", str(output)]) == 0
    assert "prefill-8" in capsys.readouterr().out
    assert "8 or 32 tokens of bfloat16" in (output / "report.html").read_text()
    joint = ["--set", "profiles=joint", "-o", str(folder / "joint")]
    assert main(["build", *named, *more, *rooms, *joint]) == 0
    (entry,) = json.loads((folder / "joint" / "manifest.json").read_text())["engines"]
    assert {p["name"]: p["max"]["input_ids"] for p in entry["profiles"]} == {
        "joint-8": [2, 8],
        "joint-32": [2, 32],
    }
    beyond = ["--set", "shapes={cache: [32, 4096]}", "-o", str(folder / "beyond")]
    assert main(["build", *named, *more, *beyond]) == 2
    assert not (folder / "beyond").exists()


def test_what_people_read_says_that_nobody_ran_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = build(folder, "gemma3", "auto")
    page = (root / "report.html").read_text()
    for words in (
        "executed: false (built, never run)",
        "3 layers: 2 mask, 1 native",
        "<dt>compute capabilities</dt><dd>8.9</dd>",
        '<td class="name">KV_CACHE_UPDATE</td><td>BF16</td><td class="right">6</td>',
        "Every layer, as the parser made it",
        "The builder's log",
    ):
        assert words in page
    capsys.readouterr()
    assert main(["inspect", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    layers = found["report"]["builders"]["trt-rtx"]["layers"]
    assert found["engines"]["trt-rtx"]["layers"] == f"{len(layers)}, as parsed by the builder"
    assert main(["inspect", str(root)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["KV_CACHE_UPDATE", "BF16", "6"] in rows
    assert list(build_lines(root))[-1] == "executed: false (trt-rtx: built, never run)"


def test_a_loader_registers_it(folder: Path) -> None:
    root = build(folder, "gemma2", "auto")
    done = _child(root, folder)
    assert json.loads(done.stdout.splitlines()[-1]) == [True, 2], done.stderr[-2000:]


def test_a_loader_does_not_run_a_source_that_was_changed(folder: Path) -> None:
    root = build(folder, "gemma2", "auto")
    source = root / "engines/trt-rtx/plugin/plugin_runtime.py"
    kept = source.read_bytes()
    source.write_bytes(b"print('run')\n" + kept[13:])
    try:
        done = _child(root, folder)
    finally:
        source.write_bytes(kept)
    assert done.returncode != 0
    assert "plugin_runtime.py" in done.stderr.splitlines()[-1]
    assert "run" not in done.stdout


def test_a_gpu_without_kernels_is_named_and_nothing_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(folder, "llama", "plugin")
    output = folder / "old"
    arguments = ["--model", str(folder / "llama"), "--target", "trt-rtx", "--quantize", "fp16"]
    more = ["--set", "attention=plugin", "--set", "compute_capabilities=['7.5']", "--no-check"]
    assert main(["build", *arguments, *more, "-o", str(output), "-q"]) == 1
    assert "no kernels for compute capability 7.5" in " ".join(capsys.readouterr().err.split())
    assert not output.exists()


def _child(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    links = str(folder / "links")
    return subprocess.run(
        [sys.executable, "-c", REGISTER, str(root), links],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""},
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
