"""Which models have no engine for a GPU: the others are run there, by ``test_zoo.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

import lepton_compile as lc
from lepton_compile.errors import PassError
from tests.engines.ort_cuda.models import MODELS, REFUSED
from tests.export.harness import save


@pytest.mark.parametrize(("task", "name"), list(MODELS))
def test_a_model_has_kernels_unless_the_table_says_otherwise(
    task: str, name: str, tmp_path: Path
) -> None:
    MODELS[task, name]().save_pretrained(tmp_path)
    (engine,) = lc.plan(model=str(tmp_path), task=task, target="ort-cuda", compute="fp16").engines
    assert engine.missing == [reason for key, reason in REFUSED.items() if key == (task, name)]


@pytest.mark.parametrize(("task", "name"), list(REFUSED))
def test_a_build_says_why(task: str, name: str, tmp_path: Path) -> None:
    save(MODELS[task, name], task, tmp_path / "model")
    recipe = {"target": "ort-cuda", "compute": "fp16", "output": tmp_path / "out"}
    with pytest.raises(PassError) as caught:
        lc.build(model=str(tmp_path / "model"), task=task, verify=False, check=False, **recipe)
    assert REFUSED[task, name] in str(caught.value)
