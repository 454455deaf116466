"""Graphs that this process has traced, for the next build of the same model.

A trace reads the configuration of a model and none of its weights: recipes that differ in bits or
targets begin with the same graph, and tracing it is most of what a small build takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from .model import Graph

__all__ = ["TRACED", "Traced"]

MOST = 4
# Bytes of what a graph holds itself, such as rotary tables of long sequences.
LARGEST = 8 << 20
# Where a configuration was read, and by which release it was written.
_UNREAD = ("_name_or_path", "transformers_version")


class Traced:
    """The graphs traced last, ``MOST`` of them. Each is handed out as a copy: passes change it."""

    def __init__(self) -> None:
        self._graphs: dict[str, Graph] = {}

    def graph(self, network: nn.Module, asked: object, trace: Callable[[], Graph]) -> Graph:
        """The graph that ``trace`` gives, of the last time where there was one.

        Args:
            network: the model on the meta device.
            asked: what else the trace goes by; its ``repr`` says all of it.
        """
        key = _key(network, asked)
        kept = self._graphs.pop(key, None) if key is not None else None
        graph = kept or trace()
        if key is not None and sum(each.nbytes for each in graph.values.values()) <= LARGEST:
            self._graphs[key] = _copy(graph) if kept is None else kept
            for oldest in [*self._graphs][:-MOST]:
                self._graphs.pop(oldest, None)
        return graph if kept is None else _copy(kept)


TRACED = Traced()
"""Those of this process."""


def _key(network: Any, asked: object) -> str | None:
    """Equal for models that are traced alike; None where the code is not transformers' own, which
    stays as it is while a process runs."""
    if not type(network).__module__.startswith("transformers."):
        return None
    known = {k: v for k, v in network.config.to_dict().items() if k not in _UNREAD}
    state = network.state_dict(keep_vars=True)
    first = {id(each): name for name, each in reversed([*state.items()])}  # of those that are tied
    weights = [(name, tuple(each.shape), first[id(each)]) for name, each in state.items()]
    settings = json.dumps(known, sort_keys=True, default=repr)
    return repr((type(network).__qualname__, settings, weights, asked))


def _copy(graph: Graph) -> Graph:
    return replace(
        graph,
        model=graph.model.clone(),
        parameters={**graph.parameters},
        values={**graph.values},
        caches=[*graph.caches],
        states=[*graph.states],
        refused=[*graph.refused],
    )
