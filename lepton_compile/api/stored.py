"""What ``quantize: stored`` and ``auto`` become for a checkpoint that is quantized already."""

from __future__ import annotations

from collections.abc import Sequence

from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel
from lepton_compile.recipe import Quantize, Recipe, Rule
from lepton_passes.body import bodies
from lepton_passes.quant.weights import is_table, parameter_names, quantizable

__all__ = ["with_stored_bits"]

Format = tuple[int, int | None] | None
"""Bits and group of a weight; ``None`` is floating point."""


def with_stored_bits(recipe: Recipe, exported: ExportedModel, *, native: bool) -> Recipe:
    """The recipe with a rule for each weight in place of ``stored``: 4 bits where they hold what is
    in the checkpoint, 8 for what else is quantized, ``bits`` for the rest, floating point without
    them. ``auto`` gets rules for those of 4 bits, which lose nothing; other recipes stay as they
    are.

    Args:
        native: whether the engine has our own kernels, which take groups with offsets and small
            floats; there are none such for tables.

    Raises:
        RecipeError: nothing in the checkpoint is quantized, and ``stored`` asks for that.
    """
    quantize = recipe.quantize
    if quantize.algorithm not in ("auto", "stored"):
        return recipe
    weights = _weights(exported)
    held = {
        name: _held(exported, name, native=native and not table)
        for name, table in weights.items()
        if not quantize.says(name, embedding=table)
    }
    if quantize.algorithm == "auto":
        kept = [_rule(name, each) for name, each in held.items() if each and each[0] == 4]
        return _ruled(recipe, quantize, kept)
    if not exported.integers:
        raise RecipeError(
            "nothing in the checkpoint is quantized, so that no bits are stored",
            where="quantize",
            found="stored",
            available=["none", "int8", "int4", "auto"],
            hint="choose the bits; or compile a GGUF file or a folder that is quantized already",
        )
    rest = None if quantize.bits is None else (quantize.bits, quantize.group)
    formats = {
        name: (held[name] or rest) if name in held else quantize.weight(name, embedding=table)
        for name, table in weights.items()
    }
    rules = [_rule(name, each) for name, each in {**formats, "*": rest}.items()]
    return _ruled(recipe, Quantize(bits=8), rules)


def _ruled(recipe: Recipe, quantize: Quantize, rules: Sequence[Rule]) -> Recipe:
    """The recipe with further rules."""
    whole = quantize.model_copy(update={"rules": (*quantize.rules, *rules)})
    return recipe.model_copy(update={"quantize": whole})


def _held(exported: ExportedModel, name: str, *, native: bool) -> Format:
    """What holds a parameter that the checkpoint has quantized."""
    integers = exported.integers.get(name)
    if integers is None:
        return None
    four = integers.bits == 4 and (native or not integers.own)
    return (4, integers.group) if four else (8, None)


def _rule(match: str, wanted: Format) -> Rule:
    if wanted is None:
        return Rule(match=match, bits="none")
    given = {"match": match, "bits": wanted[0], "group": wanted[1]}
    return Rule.model_validate(given)


def _weights(exported: ExportedModel) -> dict[str, bool]:
    """Names of what passes quantize, and whether rows of it are looked up."""
    return {
        name: is_table(value)
        for body in bodies(exported.model)
        for value in quantizable(body)
        for name in parameter_names(body, value)
    }
