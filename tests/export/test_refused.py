"""Models that cannot be captured: the error names the model, the reasons and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compile.errors import ExportError

from .harness import compiled, save
from .zoo import DECODERS, REFUSED


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    config, architecture, reason = REFUSED[name]
    save(config, "text-generation", tmp_path)
    with pytest.raises(ExportError) as caught:
        compiled(tmp_path, "text-generation")
    assert caught.value.message == f"{architecture} cannot be captured as a graph"
    assert reason in str(caught.value.found)
    assert caught.value.hint


def test_a_task_that_the_architecture_has_no_model_for(tmp_path: Path) -> None:
    save(DECODERS["llama"][0], "text-generation", tmp_path)
    with pytest.raises(ExportError, match="no model of this architecture") as caught:
        compiled(tmp_path, "fill-mask")
    assert caught.value.found == "LlamaConfig"
