"""What a recipe demands of its engines, as the manifest keeps it and as ``verify`` reads it back.

A manifest says what its artifact was held to, so that verifying it later, elsewhere and without the
recipe, asks for the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lepton_compile.api.origin import place_again
from lepton_compile.api.texts import read_text, text_in
from lepton_compile.errors import ArtifactError, UsageError
from lepton_compile.numerics.gates import with_gates
from lepton_compile.numerics.tolerance import TOLERANCES, Tolerance, tolerance_for
from lepton_compile.recipe import Gates, Recipe

__all__ = ["Demands", "demands", "demands_entry", "gates_of", "recorded_demands", "ways_out"]


@dataclass(frozen=True)
class Demands:
    """How engines are verified, and the numbers each must reach.

    Attributes:
        gates: by target.
        text: what is read in place of the sample; None is the sample.
        tokens: how much of it; None is all.
    """

    gates: Mapping[str, Tolerance]
    text: str | None = None
    tokens: int | None = None


def demands(precision: str, task: str, gates: Gates) -> Tolerance:
    """The defaults of the precision with the recipe's gates in their place; null drops one."""
    given = gates.model_dump(exclude_unset=True)
    unheard = precision not in (*TOLERANCES, "none") and given
    return with_gates(Tolerance() if unheard else tolerance_for(precision, task), given)


def gates_of(recipe: Recipe, task: str, precisions: Mapping[str, str]) -> dict[str, Tolerance]:
    """Demands on the engine of each target, whose precisions are given."""
    return {
        target: demands(precision, task, recipe.for_target(target).gates)
        for target, precision in precisions.items()
    }


def ways_out(recipe: Recipe) -> str:
    """What loses less than the precision of a recipe, for whoever misses a demand with it."""
    given = [recipe.for_target(target).quantize for target in recipe.target]
    if not any(each.bits == 4 and each.algorithm == "rtn" for each in given):
        return "choose a higher precision"
    bits = "auto chooses bits by the gates, " if recipe.target == ("ort-cpu",) else ""
    return f"{bits}{{algorithm: awq, bits: 4, embedding: int8}} loses less, int8 least"


def demands_entry(recipe: Recipe, task: str, precisions: Mapping[str, str]) -> dict[str, Any]:
    """``demands`` of the manifest: gates by target, text and tokens of the verification.

    Raises:
        RecipeError: the text to compare on cannot be read.
    """
    gates = {name: each.as_dict() for name, each in gates_of(recipe, task, precisions).items()}
    text = None
    if recipe.verify.text is not None:
        content = read_text(recipe.base / recipe.verify.text)
        text = {"path": recipe.verify.text, "sha256": _digest(content)}
    return {"gates": gates, "tokens": recipe.verify.tokens, "text": text}


def recorded_demands(
    folder: Path, manifest: Mapping[str, Any], gates: Mapping[str, Any], text: str | None
) -> Demands:
    """What an artifact was held to, from its manifest.

    Args:
        folder: the artifact's; its report says where the recipe was.
        gates: demands in place of the recorded ones, by name; ``None`` drops one.
        text: a text in place of the recorded one.

    Raises:
        UsageError: the recorded text is not where it was, or is another by now.
        ArtifactError: it was held to something that this version does not measure.
    """
    kept = manifest.get("demands") or {}
    found = {}
    for engine in manifest["engines"]:
        own = (kept.get("gates") or {}).get(engine["target"])
        base = _recorded_gates(own) if own else tolerance_for(engine["precision"], manifest["task"])
        found[engine["target"]] = with_gates(base, gates)
    if text is None and kept.get("text"):
        text = _recorded_text(folder, kept["text"])
    return Demands(found, text, kept.get("tokens"))


def _recorded_gates(gates: Mapping[str, Any]) -> Tolerance:
    try:
        return Tolerance(**gates)
    except TypeError as error:
        raise ArtifactError(
            "the artifact was held to a number that this version does not measure",
            where="manifest.demands.gates",
            found=", ".join(gates),
            available=[each.name for each in fields(Tolerance)],
        ) from error


def _recorded_text(folder: Path, entry: Mapping[str, Any]) -> str:
    path = Path(place_again(folder, entry["path"]))
    why = None
    try:
        if not path.is_file():  # a device may never end
            raise FileNotFoundError("no such file")
        text = text_in(path)
        if _digest(text) != entry["sha256"]:
            why = f"{path} has another content by now"
    except (OSError, UnicodeDecodeError) as error:
        why = f"{path}: {error}"
    if why is not None:
        raise UsageError(
            "the text that this artifact was verified on is not here",
            where="demands.text",
            found=why,
            available=[f"SHA-256 {entry['sha256']}"],
            hint="name it with --text, or another text",
        )
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
