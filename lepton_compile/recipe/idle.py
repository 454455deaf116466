"""What is written in a recipe and changes nothing is a mistake: a build that went on would be
another than the one asked for, and nobody would know.

The targets of a recipe are judged together: a key that serves one of them is right. And a file is
written once and built in several ways: what has an effect there, and loses it to an override
(``--target ort-cpu`` over ``attention: mask``), is no mistake of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lepton_compile.errors import RecipeError
from lepton_compile.recipe.effects import EFFECTS, Effect
from lepton_compile.recipe.problems import all_at_once
from lepton_compile.recipe.quantize import Quantize
from lepton_compile.recipe.schema import Recipe, TargetOptions

__all__ = ["check_idle"]

CAPTURED = ("model: a folder, hf:…, package:… or a .gguf file",)


@dataclass(frozen=True)
class _Idle:
    """A value that changes nothing, at a dotted path; ``lacks`` is what has no use for it."""

    path: str
    value: Any
    why: str
    lacks: Sequence[str] = ()
    available: Sequence[str] = ()
    hint: str = "leave it out"


@dataclass(frozen=True)
class _Section:
    """A place where a key may stand: the recipe, or what one of its targets has for itself."""

    prefix: str
    options: Recipe | TargetOptions
    targets: tuple[str, ...]


def check_idle(recipe: Recipe, inferred: str | None = None) -> None:
    """Everything the recipe says changes something.

    Args:
        inferred: the model's task, where the recipe names none; left out, it may be any.

    Raises:
        RecipeError: something does not.
    """
    mistakes = [_mistake(each, recipe) for each in _idle(recipe, inferred)]
    if mistakes:
        raise all_at_once(mistakes, "recipe")


def _mistake(idle: _Idle, recipe: Recipe) -> RecipeError:
    where = recipe.place(idle.path)
    subject = "this" if where == idle.path else idle.path
    return RecipeError(
        f"{subject} changes nothing here: {idle.why}",
        where=where,
        found=", for ".join([_text(idle.value), *([", ".join(idle.lacks)] if idle.lacks else [])]),
        available=idle.available,
        hint=idle.hint,
    )


def _idle(recipe: Recipe, inferred: str | None) -> list[_Idle]:
    found = [*_strangers(recipe), *_replaced(recipe), *_unserved(recipe, inferred)]
    before = recipe.before
    if before is None or not found:
        return found
    same = before.model == recipe.model
    idle = {each.path for each in _idle(before, inferred if same else None)}
    return [each for each in found if each.path in idle or each.value != _value(before, each.path)]


def _strangers(recipe: Recipe) -> Iterator[_Idle]:
    """What is said of targets that the recipe does not have."""
    for name, own in recipe.per_target.items():
        if name not in recipe.target:
            known = [f"per_target.{each}" for each in recipe.target]
            why = f"{name} is no target of this recipe"
            yield _Idle(f"per_target.{name}", own, why, available=known)


def _replaced(recipe: Recipe) -> Iterator[_Idle]:
    """What is said of all targets, where each has its own."""
    for key in TargetOptions.model_fields:
        whole, *own = _sections(recipe, key)
        if key in recipe.model_fields_set and not whole.targets:
            places = [f"{each.prefix}{key}" for each in own]
            yield _Idle(key, getattr(recipe, key), "each target has its own", available=places)


def _unserved(recipe: Recipe, inferred: str | None) -> Iterator[_Idle]:
    """What neither the targets nor the task have a use for."""
    task = recipe.task or inferred
    for key in dict.fromkeys(row.key for row in EFFECTS):
        for section in _sections(recipe, key):
            value = _value(section.options, key)
            rows = [row for row in EFFECTS if row.key == key and _asks(row, value)]
            served = any(_serves(row, recipe, section.targets, task) for row in rows)
            if rows and section.targets and not served:
                yield _unserved_by(rows, section, value, recipe, task)


def _sections(recipe: Recipe, key: str) -> list[_Section]:
    """Where a key may stand, the recipe itself first: it is for those that have no other."""
    head = key.partition(".")[0]
    own = [
        _Section(f"per_target.{name}.", options, (name,))
        for name, options in recipe.per_target.items()
        if name in recipe.target and head in options.model_fields_set
    ]
    taken = {name for each in own for name in each.targets}
    return [_Section("", recipe, tuple(n for n in recipe.target if n not in taken)), *own]


def _asks(row: Effect, value: Any) -> bool:
    if row.values is not None:
        return value in row.values
    return value is not None and value != _value(_BLANK, row.key)


def _serves(row: Effect, recipe: Recipe, targets: Sequence[str], task: str | None) -> bool:
    if (task is not None and task not in row.tasks) or (row.imported and _imported(recipe)):
        return False
    return any(name in row.targets and row.when(recipe.for_target(name)) for name in targets)


def _unserved_by(
    rows: Sequence[Effect], section: _Section, value: Any, recipe: Recipe, task: str | None
) -> _Idle:
    """The first row says why; beside it stands what would give it an effect."""
    row, path = rows[0], f"{section.prefix}{rows[0].key}"
    if row.imported and _imported(recipe):
        return _Idle(path, value, row.imported, [recipe.model], CAPTURED)
    able = dict.fromkeys(name for each in rows for name in each.targets)
    lacks, available = list[str](), list[str]()
    if not {*able} & {*section.targets}:
        lacks += section.targets
        available += [f"target: {name}" for name in able]
    if task is not None and task not in row.tasks:
        lacks.append(task)
        available += [f"task: {name}" for name in row.tasks]
    return _Idle(path, value, row.why, lacks or section.targets, available or row.needs, row.hint)


def _imported(recipe: Recipe) -> bool:
    return recipe.model.endswith(".onnx")


def _value(section: Any, path: str) -> Any:
    """The value at a dotted path; None where nothing is there."""
    for part in path.split("."):
        inside = isinstance(section, Mapping)
        section = section.get(part) if inside else getattr(section, part, None)
    return section


def _text(value: Any) -> str:
    """A value as it is written."""
    if isinstance(value, Quantize):
        return value.format
    if isinstance(value, TargetOptions):
        return ", ".join(sorted(value.model_fields_set))
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


_BLANK = Recipe(model="-")
"""What a recipe says by default."""
