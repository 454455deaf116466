"""Names of passes in a recipe: ``passes.disable`` and ``passes.expect``.

A recipe of several targets may name passes that one of them has. A file is written once and built
in several ways: what it says of a target that an override dropped is no mistake of the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import Recipe
from lepton_compile.recipe.schema import TARGETS
from lepton_passes.catalog import CATALOG

__all__ = ["check_names", "expected_counts"]


def check_names(recipe: Recipe, target: str) -> None:
    """Each name is that of a pass which ``target`` or another of the recipe has, or had before.

    Raises:
        RecipeError: one is not.
    """
    before, here = recipe.before or recipe, (target, *recipe.target)
    kept = {*before.passes.expect.items()} & {*recipe.passes.expect.items()}
    written = {*before.passes.disable} | {name for name, _ in kept}
    given = [(name, "passes.disable", False) for name in recipe.passes.disable]
    given += [(name, f"passes.expect.{name}", True) for name in recipe.passes.expect]
    for name, place, things in given:
        targets = (*here, *before.target) if name in written else here
        if name not in _known(targets, things=things):
            raise _stranger(name, recipe.place(place), here, things=things)


def expected_counts(recipe: Recipe) -> dict[str, int]:
    """``passes.expect`` without what is said of targets that the recipe does not have any more."""
    known = _known(recipe.target, things=True)
    return {name: count for name, count in recipe.passes.expect.items() if name in known}


def _known(targets: Iterable[str], *, things: bool) -> list[str]:
    """Names of the passes that one of the targets has, then of the ``things`` they count as."""
    wanted = {*targets}
    found = [e for e in CATALOG if not e.targets or wanted & {*e.targets}]
    counted = {e.make.counts_as for e in found if e.make.counts_as is not None}
    return [*(e.name for e in found), *(sorted(counted) if things else ())]


def _stranger(name: str, where: str, here: Iterable[str], *, things: bool) -> RecipeError:
    able = [target for target in TARGETS if name in _known([target], things=things)]
    if able:
        return RecipeError(
            f"no target of this recipe has a pass {name!r}",
            where=where,
            found=f"target: {', '.join(dict.fromkeys(here))}",
            available=[f"target: {target}" for target in able],
            hint="leave it out",
        )
    known = _known(here, things=things)
    near = get_close_matches(name, known, n=1)
    return RecipeError(
        f"there is no pass {name!r}",
        where=where,
        found=name,
        available=known,
        hint=f"did you mean {near[0]!r}?" if near else "lepton-compile passes lists them",
    )
