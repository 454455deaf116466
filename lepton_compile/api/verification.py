"""Open a finished engine, compare it with PyTorch and hold it to its gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lepton_compile.artifact import Artifact
from lepton_compile.errors import RecipeError
from lepton_compile.export import Source
from lepton_compile.numerics.gates import GateCheck, check_gates, enforce, with_gates
from lepton_compile.numerics.tolerance import Tolerance, tolerance_for
from lepton_compile.numerics.verify import verify
from lepton_compile.numerics.verify_report import VerifyReport
from lepton_compile.progress import NullProgress, Progress
from lepton_compile.recipe import Gates, Recipe

__all__ = ["Verified", "demands", "verify_artifact"]


@dataclass(frozen=True)
class Verified:
    """What verification found, and the demands it was held to."""

    report: VerifyReport
    gates: tuple[GateCheck, ...]


def demands(precision: str, task: str, gates: Gates) -> Tolerance:
    """The defaults of the precision with the recipe's gates in their place; null drops one."""
    return with_gates(tolerance_for(precision, task), gates.model_dump(exclude_unset=True))


def verify_artifact(
    artifact: Artifact, source: Source, recipe: Recipe, progress: Progress | None = None
) -> Verified:
    """Compare the engine of ``artifact`` with the fp32 model of ``source``.

    Raises:
        GateError: a demanded number was missed.
        RecipeError: the text to compare on cannot be read.
    """
    from lepton_compile.export.reference import load_reference
    from lepton_compile.runtime import load

    task = artifact.manifest.task
    precision: Any = artifact.manifest.engines[0]["precision"]
    watcher = progress or NullProgress()
    watcher.step("loading the fp32 model", 0, 1)
    reference = load_reference(source, task)
    with load(artifact.path) as model:
        report = verify(
            model,
            reference,
            source.tokenizer(),
            task,
            precision=precision,
            text=_text(recipe),
            tokens=recipe.verify.tokens,
            progress=watcher,
        )
    gates = check_gates(report, demands(precision, task, recipe.gates))
    enforce(gates)
    return Verified(report, gates)


def _text(recipe: Recipe) -> str | None:
    if recipe.verify.text is None:
        return None
    path = recipe.base / recipe.verify.text
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            "the text to verify on cannot be read", where="verify.text", found=f"{path}: {error}"
        ) from error
