"""Tokens that a row may not go on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lepton_compile.runtime.loader_guard import refuse

__all__ = ["NO_TOKENS", "Ruled", "check_ruled"]

NO_TOKENS = "manifest.json is damaged: manifest.generation has tokens that there are not"


def check_ruled(told: dict[str, Any]) -> None:
    """Refuse tokens that there are not."""
    for name in ("never", "first"):
        told[name] = [*map(int, told[name] or ())]  # True is 1, and no mask
        refuse(max(told[name], default=0) >= told["vocabulary"], NO_TOKENS)
    if told["rules"]:
        from lepton_compile.runtime.loader_rules import check_rules

        check_rules(told)


class Ruled(NamedTuple):
    """Sampling without the tokens that may not follow in a row."""

    how: Any
    told: Mapping[str, Any]
    seed: int | None

    def pick(self, scores: np.ndarray, row: Any, draw: Any) -> int:
        """One token id for ``row`` from ``scores``, which are overwritten."""
        told = self.told
        scores[told["never"] + told["first"] * (not row.tokens)] = -np.inf
        if told["rules"]:
            from lepton_compile.runtime.loader_rules import rule_out

            rule_out(told, scores, row, row.tokens)
        if told.get("times") and row.ids[-1:] != told["plain"]:
            from lepton_compile.runtime.loader_times import rule_times

            rule_times(told, scores, row.tokens)
        return int(self.how.pick(scores, row, draw))
