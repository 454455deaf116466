"""What a type checker knows of the calls of an opened model.

Nothing runs this: mypy reads it with the sources, and finds each type that is another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

import numpy as np

import lepton_compile as lc
from lepton_compile.runtime import Generation, Model
from lepton_compile.runtime.loader_speech import Transcript

MESSAGES = [{"role": "user", "content": "Hello"}]


def opened(path: Path) -> None:
    """By what ``build`` gave, or by a path."""
    assert_type(lc.load(path), Model)
    with lc.load(lc.build(model=path), threads=1) as model:
        assert_type(model, Model)
        assert_type(model.run({"x": np.zeros(1)}), dict[str, np.ndarray])


def written(model: Model, ids: np.ndarray, streams: bool) -> None:
    """One prompt gives one answer, a list of them a list, and a stream pieces."""
    assert_type(model.generate("Once", 5, temperature=0.8, stop=["."], chat=MESSAGES), Generation)
    assert_type(model.generate([2, 818], max_new_tokens=5), Generation)
    assert_type(model.generate(ids), Generation)
    assert_type(model.generate(MESSAGES, chat={"tools": []}), Generation)
    assert_type(model.generate(["Once", "Twice"]), list[Generation])
    assert_type(model.generate([[2, 818], [3]]), list[Generation])
    assert_type(model.generate([ids, ids], beams=4, start="fra_Latn"), list[Generation])
    assert_type(model.generate([MESSAGES, MESSAGES]), list[Generation])
    assert_type(model.generate("Once", stream=True), Iterator[str | int])
    assert_type(model.generate("Once", stream=streams), Generation | Iterator[str | int])


def refused(model: Model) -> None:
    """What no call takes; an ignored line without an error is one itself."""
    model.generate("Once", temprature=0.8)  # type: ignore[call-overload]
    model.generate(["Once", "Twice"], stream=True)  # type: ignore[arg-type]
    model.generat("Once")  # type: ignore[attr-defined]


def said(model: Model, samples: np.ndarray, path: Path) -> None:
    """One sound gives one transcript."""
    assert_type(model.transcribe("said.wav", "en", timestamps=True), Transcript)
    assert_type(model.transcribe(path), Transcript)
    assert_type(model.transcribe([samples, "said.wav"], language="en"), list[Transcript])
