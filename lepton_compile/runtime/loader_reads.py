"""Texts that are answered."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import failing, refuse
from lepton_compile.runtime.loader_source import IDS, MASK, Begun

__all__ = ["starts", "with_mask"]


def starts(model: Any, sources: list[list[int]], start: Any) -> list[Begun]:
    """What the answer to each source begins with: the model's own tokens, then those of ``start``.

    Those of the model are what it was released to begin with; ``start`` takes the place of all but
    the first, which stands for the beginning.
    """
    able = model.task == "text2text-generation"
    refuse(not able, f"start and beams are of no use: this model does {model.task}")
    refuse(not all(sources), "the text is empty")
    width = max(map(len, sources))
    model.fit(IDS, [ids + [ids[0]] * (width - len(ids)) for ids in sources])
    first, *rest = model.manifest["generation"]["start"]
    if start is not None:
        wrong = f"start takes names of tokens or ids, a list or one: {start!r:.60}"
        with failing(wrong):
            given = [start] if isinstance(start, str | int | np.integer) else [*start]
        rest = [_token(model, each, wrong) for each in given]
    begun = [Begun([first, *rest]) for _ in sources]
    for one, source in zip(begun, sources, strict=True):
        one.source = source
    return begun


def _token(model: Any, name: Any, wrong: str) -> int:
    if isinstance(name, str):
        found = model.tokenizer.token_to_id(name)
        refuse(found is None, f"the tokenizer has no token {name!r:.60}")
        return int(found)
    refuse(not isinstance(name, int | np.integer) or isinstance(name, bool), wrong)
    return int(name)


def with_mask(given: dict[str, np.ndarray]) -> None:
    """Add the mask of what is read, where it has no padding."""
    if IDS in given:
        given.setdefault(MASK, np.ones_like(given[IDS]))
