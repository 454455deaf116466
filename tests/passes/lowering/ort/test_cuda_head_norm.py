"""lower-cuda-head-norm."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from lepton_passes.contract import CLOSE
from lepton_passes.emulation import Emulation
from lepton_passes.lowering.ort.cuda_head_norm import LowerCudaHeadNorm
from tests.passes.lowering.ort import head_norms
from tests.passes.support import Arrays, assert_close, ops, random, reasons, run

FEEDS: Arrays = {
    "x": random(1, 8, 128),
    "pk": random(1, 2, 0, 16, seed=3),
    "pv": random(1, 2, 0, 16, seed=4),
    "lengths": np.full(1, 7, np.int32),
    "total": np.array(8, np.int32),
}
_model = partial(
    head_norms.model,
    "RMSNormalization <axis = -1, epsilon = {epsilon}>",
    "com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2, scale = 0.3>",
)


def _check(model: ir.Model) -> LowerCudaHeadNorm:
    """Held to what it was as the emulation says it, for the CPU has no such kernel."""
    before, lowered = run(model, FEEDS), LowerCudaHeadNorm()
    lowered(model)
    assert_close(before, run(Emulation()(model), FEEDS), CLOSE)
    return lowered


@pytest.mark.parametrize(("how", "left"), head_norms.TAKEN)
def test_takes(how: dict[str, Any], left: list[str]) -> None:
    model = _model(**how)
    assert _check(model).fired == 1
    assert ops(model) == left


def test_packed_projections_come_as_they_are() -> None:
    model = _model()
    LowerCudaHeadNorm()(model)
    (node,) = (n for n in model.graph if n.op_type == "GroupQueryAttention")
    names = [value.name if value is not None else "" for value in node.inputs]
    assert names[:3] == ["x", "", ""]
    assert names[14:] == ["gamma_q", "gamma_k"]
    assert node.attributes.get_float("qk_norm_epsilon") == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        *head_norms.REFUSED,
        (
            {"query": "RMSNormalization <axis = -1, epsilon = 1e-6, stash_type = 10>"},
            "the norm runs over other axes than the last, or not in fp32",
        ),
        ({"width": 512}, "heads of 512 are wider than 256"),
    ],
)
def test_refuses(how: dict[str, Any], reason: str) -> None:
    model = _model(**how)
    lowered = LowerCudaHeadNorm()
    lowered(model)
    assert (lowered.fired, reasons(lowered)) == (0, [reason])
    assert {"RMSNormalization", "GroupQueryAttention"} <= set(ops(model))


def test_refuses_attention_that_has_norms_of_its_own() -> None:
    """As a file may."""
    model = _model()
    (node,) = (n for n in model.graph if n.op_type == "GroupQueryAttention")
    norm = next(n for n in model.graph if n.op_type == "RMSNormalization")
    node.resize_inputs(16)
    for place in LowerCudaHeadNorm.places:
        node.replace_input_with(place, norm.inputs[1])
    lowered = LowerCudaHeadNorm()
    lowered(model)
    assert (lowered.fired, reasons(lowered)) == (0, ["it has norms of heads already"])
