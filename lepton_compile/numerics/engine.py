"""What the numbers need of an opened artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy.typing as npt

__all__ = ["Engine", "generates", "without_rules"]


class Engine(Protocol):
    """What verification needs of an opened artifact; ``lepton_compile.runtime.Model`` is one."""

    manifest: dict[str, Any]
    inputs: dict[str, Any]

    def run(
        self, feeds: Mapping[str, Any], outputs: Sequence[str] = ...
    ) -> dict[str, npt.NDArray[Any]]:
        """Arrays by input name in, arrays by output name out."""

    def features(self, window: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What a model hears of samples."""

    def begun(self) -> list[int]:
        """The tokens that what it writes begins with."""

    def write(self, heard: Sequence[Any], *, max_new_tokens: int = ...) -> Any:
        """What it writes of windows of features, one for each; ``.tokens`` holds its ids."""

    def new_cache(self, batch: int, capacity: int) -> Any:
        """What holds the keys and values of so many rows, of so many tokens."""

    def generate(self, prompt: Any, *, max_new_tokens: int = ...) -> Any:
        """A greedy continuation, one for each of a list of prompts; ``.tokens`` holds its ids."""


def generates(manifest: Mapping[str, Any]) -> bool:
    """Whether the loader can generate: the engine needs a cache that is kept in place."""
    cache = manifest.get("cache")
    return bool(cache and cache["shared"])


@contextmanager
def without_rules(model: Engine, *names: str) -> Iterator[None]:
    """``model``, held to none of the ``names`` of its manifest's generation.

    A rule puts a token where the model would choose another: that says nothing of its numbers.
    """
    told = model.manifest.get("generation") or {}
    kept = {name: told[name] for name in names if name in told}
    told.update({name: None if name == "rules" else [] for name in kept})
    try:
        yield
    finally:
        told.update(kept)
