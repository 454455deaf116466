"""``quantize`` and its rules, held against the parameters that the captured graph reads.

A rule that matches none would change nothing, and a slip of the pen would keep a precision that
nobody asked for. So would one that matches only what is never quantized, such as norms, and one
behind rules that take all that it matches. Weights of an ONNX file may be of a type that is not
rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

import onnx_ir as ir

from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel
from lepton_compile.recipe import Quantize, Recipe, Rule
from lepton_passes.body import bodies
from lepton_passes.quant.weights import parameter_names, quantizable, stored_name

__all__ = ["check_rules", "check_weights"]

ROUNDED = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
SHOWN = 6
"""Names that an error offers in place of one."""


def check_rules(recipe: Recipe, exported: ExportedModel) -> None:
    """Each rule of each target holds for a parameter of the neutral graph, whose initializers have
    tensors.

    Raises:
        RecipeError: one does not.
    """
    for target in recipe.target:
        key = recipe.key_of("quantize.rules", target)
        quantize = recipe.for_target(target).quantize
        found = _Parameters(exported) if quantize.rules else None
        for index, rule in enumerate(quantize.rules):
            assert found is not None
            if mistake := _mistake(rule, quantize, found):
                mistake.where = f"{key}[{index}].match"
                raise mistake


def check_weights(recipe: Recipe, exported: ExportedModel) -> None:
    """An imported graph has weights that can be rounded, for each target that is to have them so.

    Raises:
        RecipeError: it has none, or they are halves, for which ``ort-cpu`` has no kernels.
    """
    values = exported.model.graph.initializers.values()
    types = {v.dtype for v in values if v.uses() and v.shape is not None and len(v.shape) > 1}
    for target in recipe.target:
        taken = ROUNDED[:1] if target == "ort-cpu" else ROUNDED
        if recipe.for_target(target).quantize.bits and not types & {*taken}:
            raise RecipeError(
                f"the ONNX file has no weights that {target} could round",
                where="quantize",
                found=", ".join(sorted(t.name for t in types if t)) or "no matrices",
                available=[t.name for t in taken],
                hint="leave quantize out, or export the model again in fp32",
            )


class _Parameters:
    """What the graph of a model reads.

    Attributes:
        architecture: class name of the model.
        names: names that something reads, as passes hold rules against them.
        able: those of weights that can be quantized.
        tied: as in ``ExportedModel``.
    """

    def __init__(self, exported: ExportedModel) -> None:
        self.architecture, self.tied = exported.architecture, exported.tied
        values = [value for value in exported.model.graph.initializers.values() if value.uses()]
        self.names = list(dict.fromkeys(map(stored_name, values)))
        self.able = _weights(exported.model)
        if exported.how == "imported":  # clean-up finds those of linear layers that it mends
            self.able = {stored_name(v) for v in values if v.shape is not None and len(v.shape) > 1}


def _weights(model: ir.Model) -> set[str]:
    """Names of what passes quantize: weights of linear layers, experts and tables."""
    found = [(body, value) for body in bodies(model) for value in quantizable(body)]
    return {name for body, value in found for name in parameter_names(body, value)}


def _mistake(rule: Rule, quantize: Quantize, found: _Parameters) -> RecipeError | None:
    """What is wrong with one of the rules."""
    matched = [name for name in found.names if fnmatchcase(name, rule.match)]
    able = [name for name in matched if name in found.able]
    if not matched:
        return RecipeError(
            f"a rule matches no parameter that {found.architecture} reads",
            found=rule.match,
            available=_nearest(rule.match, sorted(found.able) or found.names),
            hint=_hint(rule.match, found),
        )
    if not able and rule.bits != "none":
        return RecipeError(
            "a rule matches only what is never quantized",
            found=f"{rule.match}: {', '.join(_kinds(matched)[:SHOWN])}",
            available=_nearest(rule.match, sorted(found.able)),
            hint="leave the rule out: these stay in floating point",
        )
    asked = quantize.asked_by(rule)
    if able and all(quantize.weight(name) != asked for name in able):
        others = [r for r in quantize.rules if any(fnmatchcase(name, r.match) for name in able)]
        return RecipeError(
            "a rule never holds: the first that matches does, and others stand before it",
            found=rule.match,
            available=[f"{r.match} (bits: {r.bits})" for r in others[: others.index(rule)]],
            hint="move it in front of them, or leave it out",
        )
    return None


def _nearest(pattern: str, names: Iterable[str]) -> list[str]:
    """Names most like ``pattern``, the nearest first, one for what all layers have."""
    return get_close_matches(pattern, _kinds(names), n=SHOWN, cutoff=0.0)


def _kinds(names: Iterable[str]) -> list[str]:
    """Names, one for what all layers have."""
    return list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))


def _hint(pattern: str, found: _Parameters) -> str:
    """What to do next; a tied weight goes by one of its names."""
    tied = found.tied
    for other, kept in [*tied.items(), *((kept, other) for other, kept in tied.items())]:
        if fnmatchcase(other, pattern) and kept in found.names:
            return f"{other} is tied to {kept}, and the weight goes by that name here"
    return "correct the pattern, or leave the rule out"
