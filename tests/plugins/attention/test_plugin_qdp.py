"""The ahead-of-time face: what TensorRT 11 is told of each kernel, for shapes that stay open."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton_plugins.attention import launch, plugin_qdp
from lepton_plugins.attention.plugin_qdp import STEPS, Step
from lepton_plugins.attention.tiles import tiles_for
from lepton_plugins.attention.variant import Variant
from tests.plugins.attention import trtp_double
from tests.plugins.attention.bindings import needs_bindings, run_bindings
from tests.plugins.attention.qdp_kernels import kernel_of

API = json.loads(Path(__file__).with_name("tensorrt_plugin_api.json").read_text("utf-8"))
SPLITS, CAPACITY = 6, 4096
TYPES = {"float16": "HALF", "bfloat16": "BF16", "int8": "INT8"}
ATTRIBUTES: dict[str, Any] = {
    "q_num_heads": 8,
    "kv_num_heads": 2,
    "head_dim": 80,
    "scale": 0.1,
    "softcap": 30.0,
    "window": 512,
    "key_scale": 0.03,
    "value_scale": 0.05,
}
SHAPES = [(1, 1), (3, 16), (2, 517)]
CASES = [(step, dtype, *shape) for step in STEPS for dtype in TYPES for shape in SHAPES]


def job(step: Step, cache: str, batch: int, sequence: int) -> tuple[str, list[Any], dict[str, Any]]:
    """A node of ``step`` in bfloat16, or all in float16."""
    dtype = "HALF" if cache == "float16" else "BF16"
    group = 4
    past = (TYPES[cache], [batch, 2, CAPACITY, 80])
    tensors = {
        "query": (dtype, [batch, sequence, 640]),
        "key": (dtype, [batch, sequence, 160]),
        "value": (dtype, [batch, sequence, 160]),
        "past_lengths": ("INT32", [batch]),
        "key_cache": past,
        "value_cache": past,
        "sinks": ("FLOAT", [8]),
        "partial": ("FLOAT", [batch, 2, SPLITS, sequence * group, 80]),
        "partial_lse": ("FLOAT", [batch, 2, SPLITS, sequence * group]),
    }
    extra = {"splits": SPLITS, "dtype": "float16" if cache == "float16" else "bfloat16"}
    attributes = {name: (ATTRIBUTES | extra)[name] for name in step.attributes}
    return step.op, [tensors[name] for name in step.inputs], attributes


def check(step: Step, cache: str, batch: int, sequence: int, seen: dict[str, Any]) -> None:
    """``seen`` is what the launch contract says."""
    dtype = "float16" if cache == "float16" else "bfloat16"
    rounded = {n: _float32(v) if isinstance(v, float) else v for n, v in ATTRIBUTES.items()}
    kept = dtype if step.kernel == "combine" else cache
    variant = Variant(dtype=dtype, cache_dtype=kept, sinks=step.sinks, **rounded)
    kernel = kernel_of(step.kernel, variant, 90)
    assert (seen["entry"], seen["code"]) == (kernel.entry, kernel.ptx)
    tiles = tiles_for(step.kernel, 90, variant)
    sizes = launch.dimensions(
        variant, tiles, batch=batch, sequence=sequence, capacity=CAPACITY, splits=SPLITS
    )
    assert seen["sizes"] == [*launch.grid(step.kernel, sizes), 128, 1, 1, 1024]
    assert seen["scalars"] == [sizes[name] for name in launch.KERNELS[step.kernel].scalars]
    trt_dtype, past = TYPES[dtype], [TYPES[cache], [batch, 2, CAPACITY, 80]]
    lines = [batch, 2, SPLITS, sequence * 4]
    expected = {
        "output": [trt_dtype, [batch, sequence, 640]],
        "present_key": past,
        "present_value": past,
        "partial": ["FLOAT", [*lines, 80]],
        "partial_lse": ["FLOAT", lines],
    }
    assert seen["outputs"] == [expected[name] for name in step.outputs]
    inputs = step.inputs
    memory = {"present_key": "key_cache", "present_value": "value_cache"}
    assert seen["aliases"] == [inputs.index(memory[n]) if n in memory else -1 for n in step.outputs]


def _float32(value: float) -> float:
    return float(np.float32(value))


@pytest.fixture(scope="module")
def face() -> plugin_qdp.AotFace:
    return plugin_qdp.register(trtp_double.TRT, trtp_double, kernel_of, 90)


@pytest.mark.parametrize(("step", "cache", "batch", "sequence"), CASES)
def test_each_step_is_launched_as_the_contract_says(
    face: plugin_qdp.AotFace, step: Step, cache: str, batch: int, sequence: int
) -> None:
    check(step, cache, batch, sequence, trtp_double.launch(*job(step, cache, batch, sequence)))


@needs_bindings
def test_the_bindings_themselves_take_it() -> None:
    """Their own decorators, validators and template, with every step and shape."""
    seen = run_bindings("qdp", [job(*case) for case in CASES])
    assert len(seen) == len(CASES)
    for case, found in zip(CASES, seen, strict=True):
        check(*case, found)


def test_registering_again_changes_the_compiler(face: plugin_qdp.AotFace) -> None:
    again = plugin_qdp.register(trtp_double.TRT, trtp_double, kernel_of, 80)
    try:
        assert again is face
        found = trtp_double.launch(*job(STEPS[0], "int8", 1, 1))
        assert found["code"].endswith(" 80")
    finally:
        plugin_qdp.register(trtp_double.TRT, trtp_double, kernel_of, 90)


def test_names_and_arguments_are_those_of_the_bindings() -> None:
    """All that our code takes from ``tensorrt.plugin`` is there, under these arguments."""
    tree = ast.parse(Path(plugin_qdp.__file__).read_text("utf-8"))
    taken = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and _is(n, "trtp")}
    assert taken >= {"register", "aot_impl", "KernelLaunchParams", "from_shape_expr"}
    assert taken - {"__name__"} <= {*API["functions"], *API["classes"]}
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _is(n.func, "trtp")]
    for call in calls:
        assert isinstance(call.func, ast.Attribute)
        known = API["functions"].get(call.func.attr) or API["classes"][call.func.attr]["__init__"]
        assert len(call.args) <= len(known), call.func.attr
        assert {k.arg for k in call.keywords} <= set(known), call.func.attr
    assert calls


def test_the_double_has_the_names_and_arguments_of_the_bindings() -> None:
    tree = ast.parse(Path(trtp_double.__file__).read_text("utf-8"))
    checked = 0
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in API["functions"]:
            assert [a.arg for a in node.args.args] == API["functions"][node.name], node.name
            checked += 1
        if isinstance(node, ast.ClassDef) and node.name in API["classes"]:
            for method in (n for n in node.body if isinstance(n, ast.FunctionDef)):
                if not method.name.startswith("_") or method.name == "__init__":
                    known = API["classes"][node.name][method.name]
                    assert [a.arg for a in method.args.args][1:] == known, method.name
                    checked += 1
    assert checked >= 10


def _is(node: ast.AST, module: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == module
    )
