"""A way of capturing a model that would end as one before it is told, and not gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.export import ExportedProgram

from lepton_compile.errors import ExportError
from lepton_compile.export import model
from lepton_compile.export.capture import NAME, TORCH
from lepton_compile.export.model import Way
from lepton_compile.export.trace import trace

from .harness import compiled, save
from .zoo import ENCODERS, MORE_ENCODERS

MODELS = {**ENCODERS, **MORE_ENCODERS}
# What the first of its layers cannot do, and what none of them calls.
NOT_RUN = "stamped, whole: torch.export could not trace the model (RuntimeError"
NOT_CALLED = "stamped, whole: the model does not call torch's attention"


@pytest.mark.parametrize(
    ("name", "traces", "reasons"),
    [
        ("albert", 1, ["stamped: the model has no layers"]),
        ("big-bird", 2, [NOT_RUN, NOT_CALLED]),
        ("layoutlm", 2, ["stamped, whole: attention is called with a mask that"]),
        ("t5", 2, ["stamped, whole: attention is given more", "stamped, whole: attention is call"]),
    ],
)
def test_a_way_that_would_end_the_same(
    name: str, traces: int, reasons: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def noted(*args: Any) -> ExportedProgram:
        seen.append(args)
        return trace(*args)

    monkeypatch.setattr(model, "trace", noted)
    save(MODELS[name][0], "feature-extraction", tmp_path)
    exported, _ = compiled(tmp_path, "feature-extraction")
    assert len(seen) == traces
    for note, reason in zip(exported.notes, reasons, strict=True):
        assert note.startswith(reason)
    told = [note.partition(": ")[2] for note in exported.notes if note.startswith("stamped, whole")]
    for attention in (NAME, TORCH) if told else ():
        assert _ends(tmp_path, Way("whole", attention), monkeypatch) in told


def _ends(folder: Path, way: Way, monkeypatch: pytest.MonkeyPatch) -> str:
    """The reason of a way where it is the only one, and is gone to its end."""
    monkeypatch.setattr(model, "WAYS", (way,))
    monkeypatch.setattr(model, "_rehearse", lambda *args: None)
    with pytest.raises(ExportError) as caught:
        compiled(folder, "feature-extraction")
    return str(caught.value.found).partition(": ")[2]
