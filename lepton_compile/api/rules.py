"""Rules of ``quantize``, held against the parameters that the captured graph reads.

A pattern that matches none would change nothing, and a slip of the pen would keep a precision that
nobody asked for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel
from lepton_compile.recipe import Recipe

__all__ = ["check_rules"]

SHOWN = 6
"""Names that an error offers in place of one."""


def check_rules(recipe: Recipe, exported: ExportedModel) -> None:
    """Each rule of each target matches a parameter of the neutral graph.

    Raises:
        RecipeError: one does not.
    """
    names, matrices = _parameters(exported)
    for target in recipe.target:
        own = recipe.per_target.get(target)
        place = f"per_target.{target}." if own and "quantize" in own.model_fields_set else ""
        for index, rule in enumerate(recipe.for_target(target).quantize.rules):
            if not any(fnmatchcase(name, rule.match) for name in names):
                raise RecipeError(
                    f"a rule matches no parameter that {exported.architecture} reads",
                    where=f"{place}quantize.rules[{index}].match",
                    found=rule.match,
                    available=_nearest(rule.match, matrices or names),
                    hint=_hint(rule.match, names, exported),
                )


def _parameters(exported: ExportedModel) -> tuple[list[str], list[str]]:
    """Names that something reads, as passes hold rules against them, and those of matrices."""
    values = [value for value in exported.model.graph.initializers.values() if value.uses()]
    names = {(value.name or "").split(":")[0]: value for value in values}
    matrices = [n for n, v in names.items() if v.shape is not None and len(v.shape) > 1]
    return list(names), matrices


def _nearest(pattern: str, names: Iterable[str]) -> list[str]:
    """Names most like ``pattern``, the nearest first, one for what all layers have."""
    kinds = list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))
    return get_close_matches(pattern, kinds, n=SHOWN, cutoff=0.0)


def _hint(pattern: str, names: Collection[str], exported: ExportedModel) -> str:
    """What to do next; a tied weight goes by one of its names."""
    tied = exported.tied
    for other, kept in [*tied.items(), *((kept, other) for other, kept in tied.items())]:
        if fnmatchcase(other, pattern) and kept in names:
            return f"{other} is tied to {kept}, and the weight goes by that name here"
    return "correct the pattern, or leave the rule out"
