"""Kernels that a plan asks for, looked up before anybody is given the plan."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lepton_compile.engines.tensorrt.child.events import Failure
from lepton_compile.engines.tensorrt.child.plugins import check_kernels
from lepton_plugins.attention.index import INDEX_FILE, INDEX_FORMAT, KernelIndex
from lepton_plugins.attention.variant import Variant

ASKED = Variant("float16", q_num_heads=4, kv_num_heads=2, head_dim=64)
OTHER = Variant("float16", q_num_heads=4, kv_num_heads=2, head_dim=64, window=8)


@pytest.mark.parametrize("compiled", [ASKED, OTHER])
def test_a_kernel_that_was_not_compiled_fails_the_build(tmp_path: Path, compiled: Variant) -> None:
    sets = {compiled.key: {"variant": compiled.as_dict(), "kernels": []}}
    (tmp_path / INDEX_FILE).write_text(json.dumps({"format": INDEX_FORMAT, "sets": sets}))
    kernels = SimpleNamespace(index=KernelIndex(tmp_path))
    plugin = SimpleNamespace(variants={"layers.0/attention": ASKED}, kernels=kernels)
    if compiled is ASKED:
        check_kernels([plugin])
        return
    with pytest.raises(Failure, match="kernels that were not compiled") as caught:
        check_kernels([plugin])
    assert '"head_dim": 64' in caught.value.fields["found"]
