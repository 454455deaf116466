"""Greedy tokens by onnxruntime-genai and by an artifact's own loader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lepton_compile.runtime import load

__all__ = ["PROMPTS", "written_by_genai", "written_by_loader"]

PROMPTS = [[2, 5, 9, 13], [2, 7], [2, 30, 31, 32, 33, 34, 35]]


def written_by_genai(folder: Path, rows: list[list[int]], count: int) -> list[list[int]]:
    """New greedy tokens of a batch; shorter rows padded on the right, as the server does it."""
    genai = pytest.importorskip("onnxruntime_genai")
    model = genai.Model(str(folder))
    width = max(map(len, rows))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(
        max_length=width + count, min_length=width + count, do_sample=False, batch_size=len(rows)
    )
    generator = genai.Generator(model, parameters)
    padded = [row + [0] * (width - len(row)) for row in rows]
    generator.append_tokens(np.array(padded, np.int32).ravel())
    while not generator.is_done():
        generator.generate_next_token()
    sequences = [generator.get_sequence(number) for number in range(len(rows))]
    return [[int(token) for token in sequence][width:] for sequence in sequences]


def written_by_loader(artifact: Path, rows: list[list[int]], count: int) -> list[list[int]]:
    with load(artifact, threads=1) as model:
        return [found.tokens for found in model.generate(rows, max_new_tokens=count)]
