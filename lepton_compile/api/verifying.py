"""An artifact against the fp32 PyTorch model that it came from, after it was built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lepton_compile.api.comparing import room_to_verify
from lepton_compile.api.demands import recorded_demands
from lepton_compile.api.memory import MemoryCeiling
from lepton_compile.api.origin import origin_of, what_differs
from lepton_compile.api.refusals import blaming_named_model
from lepton_compile.api.texts import check_long_enough, read_text
from lepton_compile.api.verification import Verified, runnable, verify_engines
from lepton_compile.artifact import read_manifest
from lepton_compile.errors import EngineError, GateError, UsageError
from lepton_compile.export import Source
from lepton_compile.numerics import enforce
from lepton_compile.progress import Progress
from lepton_compile.recipe import TASKS, load_recipe

__all__ = ["Verification", "room_of", "run_verification"]


@dataclass(frozen=True)
class Verification:
    """What a verification found of the engines of an artifact.

    Attributes:
        engines: each with its ``target``, ``report`` (``perplexity``, ``cosine``, errors and more)
            and ``gates``: what was demanded and found.
        other: where a gate was missed, and a model was named, what of it is not as it was built
            from; else empty.
    """

    engines: tuple[Verified, ...]
    other: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready. The first engine stands on top, as in ``report.json``, and all of them are
        ``engines``."""
        first, *others = engines = [each.as_dict() for each in self.engines]
        return first | ({"also_verified": others} if others else {}) | {"engines": engines}

    def enforce(self) -> None:
        """Hold the engines to their gates. Raises GateError, with all this as its ``report``."""
        try:
            enforce([check for each in self.engines for check in each.gates])
        except GateError as error:
            error.report = self.as_dict()
            if self.other:
                error.hint = f"the model named is not what was built from ({self.other}): name that"
            raise


def run_verification(
    folder: Path,
    *,
    model: str | None,
    targets: Sequence[str] | None,
    text: Path | None,
    tokens: int | None,
    gates: Mapping[str, Any],
    threads: int | None,
    trusted: bool,
    progress: Progress,
) -> Verification:
    """Compare, and enforce nothing; arguments and errors: as ``api.verify``."""
    progress.stage("resolve", str(folder))
    manifest = read_manifest(folder).as_dict()
    _check_gates(manifest, gates)
    chosen = _targets(manifest, targets)
    words = read_text(text, where="text", error=UsageError) if text else None
    demands = recorded_demands(folder, manifest, gates, words)
    demands = replace(demands, tokens=tokens or demands.tokens)
    source = origin_of(folder, manifest, model, trusted)
    if text and words:
        check_long_enough(text, words, source, manifest["task"], where="text", error=UsageError)
    progress.stage("verify", f"{', '.join(chosen)} against fp32 PyTorch")
    with blaming_named_model(manifest, model):
        streamed, lacks = room_of(manifest, source)
        if lacks:
            raise EngineError(
                "there is no room for the fp32 model that the artifact is compared with",
                found=lacks,
                hint="verify where there is more memory; the artifact itself is as it was",
            )
        found = verify_engines(
            folder, chosen, source, demands, threads=threads, progress=progress, streamed=streamed
        )
    # Whole files are read for it: not where all is well.
    missed = model and not all(check.passed for each in found for check in each.gates)
    return Verification(tuple(found), what_differs(source, manifest) if missed else "")


def room_of(manifest: Mapping[str, Any], source: Source) -> tuple[bool, str]:
    """Whether the fp32 model has room a layer at a time alone, and why it has none at all; empty
    where it has."""
    parameters = (manifest.get("model") or {}).get("parameters")
    if source.kind == "onnx" or not parameters:  # whoever loads it tells; nobody knows
        return False, ""
    engine = sum(entry["size"] for entry in manifest["files"].values())
    ceiling, task = MemoryCeiling(None), manifest["task"]
    held, lacks = room_to_verify(ceiling, source, task, parameters, engine)
    return held < parameters, lacks


def _check_gates(manifest: Mapping[str, Any], gates: Mapping[str, Any]) -> None:
    """Each number is one that the artifact's task has. Raises RecipeError, as a recipe does."""
    if manifest["task"] in TASKS:
        load_recipe({"model": "-", "task": manifest["task"], "gates": gates})


def _targets(manifest: Mapping[str, Any], asked: Sequence[str] | None) -> list[str]:
    """Engines to verify: those asked for, else those that run here."""
    there = [engine["target"] for engine in manifest["engines"]]
    if asked is not None:
        if strange := [name for name in asked if name not in there]:
            raise UsageError(
                "the artifact has no such engine",
                where="target",
                found=", ".join(strange),
                available=there,
            )
        return [*dict.fromkeys(asked)]
    reasons = runnable(there)
    chosen = [name for name in there if not reasons[name]]
    if not chosen:
        raise EngineError(
            "no engine of this artifact runs on this machine",
            found="; ".join(f"{name}: {why}" for name, why in reasons.items()),
            hint="`lepton-compile targets` says what to install",
        )
    return chosen
