"""The IPluginV3 face: parsed and built by TensorRT-RTX, here without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from tests.plugins.attention.bindings import needs_bindings, run_bindings
from tests.plugins.attention.trt_graphs import graph, profile

pytest.importorskip("tensorrt_rtx")

PREFILL, DECODE = profile((1, 1, 1), (1, 16, 32)), profile((1, 4, 8), (1, 1, 1))
ROOT = Path(__file__).parents[3]


def run(work: Path, model: onnx.ModelProto, **job: Any) -> dict[str, Any]:
    """What the child saw."""
    path = work / "model.onnx"
    onnx.save(model, path)
    order = {"model": str(path), "links": str(work / "links"), "profiles": [PREFILL, DECODE]}
    done = subprocess.run(
        [sys.executable, "-m", "tests.plugins.attention.trt_child"],
        input=json.dumps(order | job),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.parametrize(
    ("dtype", "cache"),
    [
        (TensorProto.FLOAT16, None),
        (TensorProto.BFLOAT16, None),
        (TensorProto.BFLOAT16, TensorProto.INT8),
        (TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN),
    ],
)
def test_builds_with_two_profiles_and_caches_in_place(
    tmp_path: Path, dtype: int, cache: int | None
) -> None:
    seen = run(tmp_path, graph(dtype, cache, window=8, softcap=30.0, scale=0.0625))
    assert seen["parsed"], seen["errors"]
    assert seen["layers"] == ["PLUGIN_V3"]
    assert seen["built"] > 0, seen["errors"]
    assert seen["failures"] == []
    (variant,) = seen["variants"]
    assert (variant["window"], variant["softcap"], variant["scale"]) == (8, 30.0, 0.0625)
    assert variant["key_scale"] == 1.0, "left out of the node: the default of the spec"
    assert seen["modules"] == [], "building touches neither kernels nor CUDA"


def test_takes_sinks(tmp_path: Path) -> None:
    seen = run(tmp_path, graph(sinks=True))
    assert seen["built"] > 0, seen["errors"]
    assert seen["layers"] == ["CONSTANT", "PLUGIN_V3"]
    assert seen["variants"][0]["sinks"] is True


def test_aliases_need_the_preview_feature(tmp_path: Path) -> None:
    """So the builder does see the caches as one memory."""
    seen = run(tmp_path, graph(), preview=False)
    assert seen["parsed"]
    assert not seen["built"]
    assert any("Aliased I/O used by plugin" in line for line in seen["errors"])


def test_another_namespace_is_not_found(tmp_path: Path) -> None:
    seen = run(tmp_path, graph(domain="elsewhere"))
    assert not seen["parsed"]
    assert any("Plugin not found" in line for line in seen["errors"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head_dim": 24}, "no kernels for this head_dim"),
        ({"kv_num_heads": 3}, "query heads must be a multiple"),
        ({"window": 0}, "window must be positive"),
        ({"softcap": -1.0}, "softcap must be a positive number"),
        ({"sizes": {"key": 128}}, "key of CachedAttention has another shape"),
        ({"dtype": TensorProto.FLOAT}, "CachedAttention takes no query of this type"),
        ({"cache": TensorProto.BFLOAT16}, "no kernels for this cache under float16 queries"),
        (
            {"inputs": ["query", "key", "value", "past_lengths", "key_cache"]},
            "CachedAttention takes 6 inputs",
        ),
    ],
)
def test_what_there_are_no_kernels_for_is_said(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    """TensorRT only says that the node is invalid; the reason is in the registration."""
    seen = run(tmp_path, graph(**changes))
    assert not seen["parsed"]
    assert any(words in failure for failure in seen["failures"]), seen["failures"]


def test_offsets_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    """Inside a row of the batch, where kernels count with 32 bits."""
    fits, too_long = (profile((1, 1, 1), (1, 16, most)) for most in (2**23 - 1, 2**23))
    assert run(tmp_path, graph(), profiles=[fits])["built"]
    seen = run(tmp_path, graph(), profiles=[too_long])
    assert not seen["built"]
    assert "no kernels for shapes this large" in seen["failures"][0]


def test_a_plan_holds_what_the_kernels_are_found_by(tmp_path: Path) -> None:
    """Serialized fields make the same plugin again, with a scale that binary32 rounds."""
    attributes = {"q_num_heads": 4, "kv_num_heads": 2, "head_dim": 80, "key_scale": 0.03}
    seen = run(tmp_path, graph(), reopen=attributes)["reopened"]
    assert seen["same"]
    assert seen["building"] is False
    assert "registered without its kernels" in seen["attached"]
    assert seen["kept"] == [seen["attached"]]


@needs_bindings
def test_the_bindings_of_tensorrt_11_take_it() -> None:
    """Both lives of a plugin, with their classes; the kernels are noted, not launched."""
    cache = ["INT8", [3, 2, 4096, 80]]
    new = ["BF16", [3, 1, 160]]
    tensors = [["BF16", [3, 1, 640]], new, new, ["INT32", [3]], cache, cache, ["FLOAT", [8]]]
    attributes = {"q_num_heads": 8, "kv_num_heads": 2, "head_dim": 80, "scale": 0.1}
    attributes |= {"softcap": 30.0, "window": 512, "key_scale": 0.03, "value_scale": 0.05}
    (seen,) = run_bindings("v3", [["CachedAttention", tensors, attributes]])
    assert seen["outputs"] == [tensors[0], cache, cache]
    assert seen["aliases"] == [-1, 4, 5]
    assert seen["fits"] == [True] * 10
    assert seen["failures"] == []
    prepare, launch = seen["calls"]
    assert prepare == ["prepare", launch[1]]
    _, _, pointers, named = launch
    splits = named.pop("most_splits")
    assert named == {
        "batch": 3,
        "sequence": 1,
        "capacity": 4096,
        "workspace": 55,
        "stream": 66,
    }
    assert pointers["present_key"] == pointers["key_cache"]
    assert pointers["output"] == 77
    assert len(pointers) == 10
    # Partials of 3 rows of 8 heads in so many splits, float32, and what merges them.
    assert seen["workspace"] >= 3 * 8 * splits * (80 + 1) * 4
