"""The GPU benchmark of the attention kernels, tried out on the CPU: the whole flow, tiny."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attention
import pytest
from attention import Case

from tests.sources import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "bench" / "attention.py"


def test_bytes_and_operations_of_a_shape() -> None:
    """Counted by hand: 4 heads of 256 over one key head."""
    decode = Case("gemma3-270m", "decode", 2, 1000, 1000)
    assert decode.flops == 2 * 4 * (2 * 2 * 256) * 1000
    assert decode.bytes == 2 * 2 * (2 * 1000 * 256 + 2 * 4 * 256)
    prefill = Case("gemma3-270m", "prefill", 1, 3, 3)
    assert prefill.flops == 4 * (2 * 2 * 256) * (1 + 2 + 3)
    assert prefill.bytes == 2 * (2 * 3 * 256 + 2 * 3 * 4 * 256)


def test_a_window_counts_what_is_in_sight() -> None:
    decode = Case("gemma3-270m", "decode", 1, 1000, 1000, window=10)
    assert decode.flops == 4 * (2 * 2 * 256) * 10
    assert Case("gemma3-270m", "prefill", 1, 4, 4, 2).flops == 4 * (2 * 2 * 256) * (1 + 2 + 2 + 2)


def test_what_is_measured_by_default() -> None:
    found = attention.cases(attention.arguments([]))
    shapes = {(each.model, each.phase, each.batch) for each in found}
    assert len(shapes) == 8
    for model in attention.HEADS:
        lengths = {each.length for each in found if (each.model, each.phase) == (model, "decode")}
        assert lengths >= {128, 512, 2048, 8192, 32768}
    assert found == sorted(found, key=lambda each: each.flops)
    assert any(each.window > 0 for each in found)


def test_the_whole_flow_on_the_cpu(tmp_path: Path) -> None:
    """With nothing but the plugins on the path, as on a machine that has no more."""
    pytest.importorskip("triton")
    out = tmp_path / "out.json"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "plugins")}
    command = [sys.executable, SCRIPT, "--smoke", "--json", out]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text("utf-8"))
    assert found["machine"]["versions"].keys() >= {"torch", "triton", "numpy"}
    assert found["rates"]["copy_gb_s"] > 0
    assert found["cut_off"] == 0
    assert [case["phase"] for case in found["cases"]].count("prefill") == 1
    for case in found["cases"]:
        assert case["times"]["ours"]["us"] > 0
        if case["window"] < 0:
            flash = case["times"]["FLASH_ATTENTION"]
            assert flash["difference"] < 4e-3, "of float16, against ours"
            assert "backend" in case["times"]["CUDNN_ATTENTION"]["error"]
    assert out.with_suffix(".md").read_text("utf-8") == done.stdout
    assert done.stdout.count("| gemma3-270m") == len(found["cases"])


def test_a_limit_cuts_off_the_rest(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    out = tmp_path / "out.json"
    code = f"import attention; attention.main(['--smoke', '--limit', '-1', '--json', {str(out)!r}])"
    path = os.pathsep.join(map(str, (SCRIPT.parent, REPOSITORY / "plugins")))
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert done.returncode == 0
    assert json.loads(out.read_text("utf-8"))["cut_off"] == 3


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert attention.main([]) == 2
    assert "--smoke" in capsys.readouterr().err
