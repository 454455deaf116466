"""What an earlier build pinned, as its manifest has it: for one that is to give the same bytes.

A recipe leaves things open that a build decides by measuring: which kernels are fast, which bits
``auto`` may take. The manifest has these decisions, the digests of what went in, and those of all
that came out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lepton_compile.api.changes import Changes, changes, hint_of
from lepton_compile.api.origin import another_model, base_of, place_again, source_again
from lepton_compile.artifact import Manifest
from lepton_compile.errors import ArtifactError, GateError, SourceError
from lepton_compile.export import Source
from lepton_compile.export.checkpoint.names import summarize
from lepton_compile.recipe import Quantize, Recipe
from lepton_compile.recipe.schema import TARGETS
from lepton_compile.recipe.values import plain_of
from lepton_passes.lowering.ort.choices import Choice, Choose, Layer

__all__ = ["OtherPlanError", "Recorded"]

# Of the manifest, what no loader reads: how a build was checked, and what it was made with.
UNREAD = ("model", "demands", "lock", "tools", "lepton", "files")
UNREAD_OF_ENGINE = ("executed", "compared", "tactics")
UNREAD_OF_KERNELS = ("compiler",)
PLANS = (
    "TensorRT was given the same network, of which its builder does not make the same plan each "
    "time: build it again, or compare both by what they compute"
)
OWN = "lower-native"  # how names of passes begin that need kernels of our own


class OtherPlanError(GateError):
    """Nothing is other but plans, which another builder made of the same networks."""


@dataclass(frozen=True)
class Recorded:
    """The manifest of the build that is repeated, and the artifact or file that has it."""

    manifest: Manifest
    path: Path

    def recipe(self, model: str | None, *, trusted: bool) -> Recipe:
        """The recipe that was built.

        What it demanded is left out: the bytes are to be the same, whatever they were held to.

        Args:
            model: where the model is by now, in place of what is recorded.
            trusted: Python files that come with the model may run.

        Raises:
            ArtifactError: no recipe is recorded, or one of another version.
            SourceError: nothing says what the model was, and none is named.
        """
        adapter = self.manifest.model.get("adapter")
        recorded = self.manifest.lock.get("recipe")
        if not recorded:
            raise ArtifactError(
                "the manifest has no recipe",
                where="manifest.lock.recipe",
                hint="build the artifact from its recipe, which records it",
            )
        written = {key: value for key, value in recorded.items() if value is not None}
        own, passes = written.get("per_target") or {}, written.get("passes") or {}
        try:
            replaced = {
                "model": model or source_again(self.path, self.manifest.as_dict()),
                "adapter": adapter and place_again(self.path, adapter),
                "trust_remote_code": trusted,
                "verify": False,
                "max_memory": None,  # of the machine of then
                "passes": {"disable": passes.get("disable") or []},
                "kernels": "native" if self._native() else "builtin",
                "per_target": {name: _said(each) for name, each in own.items()},
            }
            recipe = Recipe.model_validate(plain_of({**written, **replaced}))
        except (ValidationError, AttributeError) as error:
            raise ArtifactError(
                "the manifest has no recipe that this version reads",
                where="manifest.lock.recipe",
                found=_mistakes(error),
                hint=f"it was built by lepton-compile {self.manifest.lepton}",
            ) from error
        # A file may say something of targets that an option left out: it is no mistake here, too.
        before = recipe.model_copy(update={"target": TARGETS})
        said = written if model is None else written.keys() - {"model"}
        places: dict[tuple[str | int, ...], str] = {
            (key,): f"manifest.lock.recipe.{key}" for key in said
        }
        # A model that is named is seen from here.
        base = base_of(self.path) if model is None else None
        return recipe.written_in(base or recipe.base, places, before)

    def check_inputs(self, source: Source) -> None:
        """Refuse a model of which any file is another.

        Raises:
            SourceError: one is; or the manifest says nothing of files.
        """
        was, now = self.manifest.lock.get("inputs"), source.digests()
        if not was:
            raise SourceError(
                "the manifest has no digests of what was built from", where="manifest.lock.inputs"
            )
        if was == now:
            return
        lists = {
            "another {}": [name for name in was if now.get(name, was[name]) != was[name]],
            "no {}": [name for name in was if name not in now],
            "{} besides": [name for name in now if name not in was],
        }
        found = [said.format(", ".join(summarize(each))) for said, each in lists.items() if each]
        raise another_model(source, "; ".join(found))

    def bits(self, recipe: Recipe, target: str) -> Recipe:
        """The recipe with the bits that ``auto`` became.

        Raises:
            ArtifactError: none are recorded, or no bits.
        """
        try:
            chosen = Quantize.model_validate(self.manifest.lock["chosen"][target])
        except (ValidationError, LookupError, TypeError) as error:
            raise _damaged(f"lock.chosen.{target}", error) from error
        return recipe.model_copy(update={"quantize": chosen})

    def kernels(self, target: str) -> Choose | None:
        """Chooses kernels of quantized linear layers as they were chosen; None where none were.

        Raises:
            ArtifactError: what is recorded is no choice.
        """
        engine = next((e for e in self.manifest.engines if e["target"] == target), {})
        if not (tactics := engine.get("tactics")):
            return None
        try:
            chosen = dict(map(_choice, tactics["layers"]))
        except (LookupError, TypeError) as error:
            raise _damaged(f"engines.{target}.tactics.layers", error) from error

        def choose(layers: Sequence[Layer]) -> Mapping[Layer, Choice]:
            return {layer: chosen[layer] for layer in layers if layer in chosen}

        return choose

    def demand_same(self, built: Manifest) -> Changes:
        """Hold a build to the bytes that are recorded; what is other, and made no difference.

        Raises:
            GateError: a file, or what a loader reads of the manifest, is another.
        """
        then, now = self.manifest.files, built.files
        names = sorted(then.keys() | now.keys())
        other = [name for name in names if then.get(name) != now.get(name)]
        was, became = _read_by_loaders(self.manifest), _read_by_loaders(built)
        keys = sorted(was.keys() | became.keys())
        other += [f"manifest.{key}" for key in keys if was.get(key) != became.get(key)]
        found = changes(self.manifest, built)
        if not other:
            return found
        equal = sum(then.get(n) == now.get(n) for n in names)
        of_plans = not found and {*other} <= self._plans()
        missed = (OtherPlanError if of_plans else GateError)(
            "the rebuilt artifact is not the same",
            where=str(self.path),
            found=f"another {', '.join(summarize(other))}; {equal} of {len(names)} files are equal",
            hint=PLANS if of_plans else hint_of(found),
        )
        missed.report = {"other": other, "changes": found}
        raise missed

    def _plans(self) -> set[str]:
        """Files that another builder makes of the network that it is given."""
        return {engine["model"] for engine in self.manifest.engines if engine.get("network")}

    def _native(self) -> bool:
        """Whether the engine was lowered to kernels of our own."""
        passes = self.manifest.lock.get("passes") or {}
        return any(name.startswith(OWN) for name in passes.get("ort-cpu", ()))


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of one target, what it has for itself."""
    return {k: v for k, v in options.items() if v is not None and k != "gates"}


def _choice(entry: Mapping[str, Any]) -> tuple[Layer, Choice]:
    layer = {name: value for name, value in entry.items() if name != "kernel"}
    return Layer(**layer), Choice(entry["kernel"], "as the artifact has it")


def _read_by_loaders(manifest: Manifest) -> dict[str, Any]:
    said = _without(UNREAD, manifest.as_dict())
    said["engines"] = [
        {
            **_without(UNREAD_OF_ENGINE, engine),
            "kernels": _without(UNREAD_OF_KERNELS, engine.get("kernels") or {}),
        }
        for engine in manifest.engines
    ]
    return said


def _without(keys: Sequence[str], entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in keys}


def _damaged(where: str, error: Exception) -> ArtifactError:
    return ArtifactError(
        "the manifest is damaged", where=f"manifest.{where}", found=_mistakes(error)
    )


def _mistakes(error: Exception) -> str:
    """What is wrong, in a line."""
    if not isinstance(error, ValidationError):
        return str(error)[:200]
    each = (
        f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}"
        for mistake in error.errors(include_url=False)
    )
    return "; ".join(each)[:200]
