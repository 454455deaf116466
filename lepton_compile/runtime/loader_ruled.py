"""What a decoder never goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lepton_compile.runtime.loader_guard import check_form, refuse

__all__ = ["check_ruled", "ruled"]

RULED = {"vocabulary": int, "eos?": [int], "never?": [int], "rules?": {"*": int}}


def check_ruled(told: dict[str, Any]) -> None:
    """Refuse tokens that there are not."""
    check_form(told, RULED, "manifest.generation")
    tokens = [*(told["never"] or ()), *((told["rules"] and told["eos"]) or ())]
    bad = max(tokens, default=0) >= told["vocabulary"]
    refuse(bad, "manifest.json is damaged: manifest.generation has tokens that there are not")


def ruled(how: Any, told: Mapping[str, Any]) -> Any:
    """Sampling by the rules that the model was released with."""
    return _Ruled(how, told) if told.get("never") or told.get("rules") else how


class _Ruled:
    """Sampling without the tokens that may not follow."""

    def __init__(self, how: Any, told: Mapping[str, Any]) -> None:
        self.how, self.seed, self.told = how, how.seed, told

    def pick(self, row: np.ndarray, seen: list[int], draw: Any) -> int:
        """One token id from ``row``, which is overwritten."""
        row[self.told["never"] or []] = -np.inf
        if self.told["rules"]:
            from lepton_compile.runtime.loader_rules import rule_out

            rule_out(self.told, row, seen)
        return int(self.how.pick(row, seen, draw))
