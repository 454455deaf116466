"""Decoders with states on our own CPU kernels: what is left of the graph, and that it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton_compile as lc
from tests.export.harness import save
from tests.export.hybrids import HYBRIDS, endless
from tests.plugins.cpu_library import needs_library

pytestmark = needs_library

IDS = np.array([[5, 6, 7, 8, 9, 10, 11, 12, 13]])


def _logits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of all tokens at once, and of the same in pieces that go on from one another's states."""
    with lc.load(folder) as model:
        whole = model.run({"input_ids": IDS}, ["logits"])["logits"]
        past: dict[str, np.ndarray] = {}
        pieces = []
        for ids in (IDS[:, :2], IDS[:, 2:3], IDS[:, 3:8], IDS[:, 8:]):
            found = model.run({"input_ids": ids, **past})
            pieces.append(found.pop("logits"))
            past = {
                name.replace("present.", "past_key_values.").replace("present_", "past_"): array
                for name, array in found.items()
            }
    return whole, np.concatenate(pieces, axis=1)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


# Gates around convolutions, the delta rule, and Mamba-2, whose keys are shared.
@pytest.mark.parametrize("name", ["lfm2", "qwen3.5", "mamba2"])
def test_quantized_engines_have_our_kernels(name: str, tmp_path: Path) -> None:
    wanted = HYBRIDS[name]
    save(endless(name), "text-generation", tmp_path / "model")
    # Weights of random numbers, in a tenth of a model's width, bear 8 bits badly.
    options: dict[str, Any] = {"model": str(tmp_path / "model"), "quantize": "int8", "check": False}
    planned = lc.plan(model=options["model"], quantize="int8").engines[0].ops
    assert planned.get("ai.lepton.cpu::CausalConv", 0) == wanted.conv
    assert planned.get("ai.lepton.cpu::LinearAttention", 0) == wanted.recurrent
    assert not {op for op in planned if "CausalConvWithState" in op}
    results = {}
    for kernels in ("native", "builtin"):
        out = tmp_path / kernels
        lc.build(output=out, kernels=kernels, tactics="default", verify=False, **options)
        assert any(out.rglob("*.so")) == (kernels == "native")
        results[kernels] = _logits(out)
    for found in results.values():
        assert _cosine(*found) > 0.999
    # Weights of the same integers, activations that are rounded in other blocks.
    assert _cosine(results["native"][0], results["builtin"][0]) > 0.99
