"""The Python surface: ``build``, ``rebuild``, ``plan`` and ``load``.

``build`` is the only function that joins the stages; each arrow of the flow is one call in it.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.api.libraries import keep_to_cores, loading
from lepton_compile.arguments import flag_of, keys_of, path_of
from lepton_compile.errors import RecipeError, UsageError, located
from lepton_compile.progress import NullProgress, Progress

if TYPE_CHECKING:
    from lepton_compile.api.planning import Plan
    from lepton_compile.api.rebuilding import Rebuilt
    from lepton_compile.artifact import Artifact
    from lepton_compile.export import Source
    from lepton_compile.recipe import Recipe
    from lepton_compile.runtime import Model

__all__ = ["build", "load", "plan", "read_recipe", "rebuild"]

# torch's tracing and what transformers is told for a capture are of the process, not of a thread.
_ONE_AT_A_TIME = threading.RLock()


def build(
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    *,
    output: str | Path | None = None,
    max_memory: int | str | None = None,
    check: bool = True,
    verify: bool | Mapping[str, Any] = True,
    overwrite: bool = False,
    progress: Progress | None = None,
    overrides: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Artifact:
    """Compile a model. Builds and plans of one process take turns, whatever thread asks.

    Args:
        recipe: YAML file, name in the catalog, the data, or a ``Recipe``; left out, keywords say
            it all.
        output: folder of the artifact; it must not exist. Default: the recipe's, or ``out/<name>``.
        max_memory: ceiling of the build's resident memory, bytes or such as ``"3GB"``.
        check: compare the graph's numbers after each pass that changes them.
        verify: compare the finished engine with the fp32 PyTorch model, and hold it to the gates;
            a mapping is the recipe's key of that name.
        overwrite: replace an artifact that stands at ``output``.
        progress: told about stages and steps.
        overrides: dotted recipe key -> value, as ``--set``.
        keywords: top-level recipe keys such as ``model=``, ``task=``, ``target=``, ``quantize=``.

    Returns:
        The artifact, with the path it stands at.

    Raises:
        UsageError: an argument is of another type than it is said to be.
        RecipeError: the recipe is wrong.
        SourceError, ExportError, PassError, EngineError, ArtifactError: the stage that failed.
        GateError: built, but a demanded number or pass count was missed. What was measured until
            then, or until a pass failed, stays in ``<output>.failed.json`` and ``.failed.html``.
    """
    _check_keywords(keywords, build)
    section, verified = _verify_of(verify)
    place, watcher, checked = _output_of(output), _progress_of(progress), flag_of(check, "check")
    replaces = flag_of(overwrite, "overwrite")
    whole = read_recipe(recipe, overrides, max_memory=max_memory, verify=section, **keywords)
    # Only now: a mistake in the recipe, or the model, is told before the libraries are loaded.
    with _ONE_AT_A_TIME:
        source = _looked_at(whole, builds=True)
        with loading(watcher):
            from lepton_compile.api.building import Build

        return Build(
            whole,
            source,
            output=place,
            check=checked and whole.check,
            verify=verified and whole.verify.enabled,
            overwrite=replaces,
            progress=watcher,
        ).run()


def rebuild(
    path: str | PathLike[str],
    *,
    model: str | Path | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Rebuilt:
    """Build an artifact again from what its manifest pins, and prove that the bytes are the same.

    The manifest has the recipe, digests of all files of the model, and what was decided by
    measuring: kernels, and the bits of ``auto``. Nothing is measured again, and nothing compared
    with PyTorch.

    Args:
        path: an artifact, whose own files are checked first, or a ``manifest.json`` alone, wherever
            it is kept: with ``output`` that is as good as the artifact.
        model: where the model is by now; its files have to be the same.
        output: keep what was built in this folder, with the manifest of then. It must not exist.
        overwrite: replace an artifact that stands at ``output``.
        trust_remote_code: Python files that come with the model may run.
        progress: told about stages and steps.

    Returns:
        A ``Rebuilt``: the ``manifest`` of both, the new ``artifact`` where there is an ``output``,
        and in ``changes`` which versions are others and made no difference.

    Raises:
        GateError: what was built is not the same: which files, and what is other than it was.
        UsageError: an argument is of another type than it is said to be.
        SourceError: the model is not there, or not the one that was built from.
        ArtifactError: there is no artifact at ``path``, or it is not intact.
        ExportError, PassError, EngineError: the stage that failed.
    """
    from lepton_compile.artifact import manifest_in, open_artifact

    given, place = path_of(path, "path"), _output_of(output)
    where = None if model is None else str(path_of(model, "model"))
    replaces, trusted = (
        flag_of(overwrite, "overwrite"),
        flag_of(trust_remote_code, "trust_remote_code"),
    )
    watcher = _progress_of(progress)
    manifest = manifest_in(given) if given.is_file() else open_artifact(given).manifest
    with _ONE_AT_A_TIME, located(given):
        from lepton_compile.api.recorded import Recorded

        recorded = Recorded(manifest, given)
        recipe = recorded.recipe(where, trusted=trusted)
        source = _looked_at(recipe, builds=True)
        with loading(watcher):
            from lepton_compile.api.rebuilding import run_again

        return run_again(
            recipe, source, recorded, output=place, overwrite=replaces, progress=watcher
        )


def plan(
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    *,
    output: str | Path | None = None,
    max_memory: int | str | None = None,
    check: bool = True,
    verify: bool | Mapping[str, Any] = True,
    progress: Progress | None = None,
    overrides: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Plan:
    """Predict a build from the model's configuration; no weight is read and nothing is written.

    The model's folder needs its ``config.json`` alone. An ONNX file is imported, weights and all,
    as a build does it.

    Args:
        check, verify: whether the build that is predicted would do so.
        output, max_memory, progress, overrides, keywords: as for ``build``.

    Returns:
        A ``Plan``: ``files`` and ``peak_memory_bytes`` in bytes, ``seconds``, and for each target
        in ``engines`` its precision, passes, ops, and what the target has no kernel for
        (``missing``); ``as_dict()`` is JSON-ready.

    Raises:
        UsageError, RecipeError, SourceError, ExportError, PassError, EngineError: as ``build``.
    """
    _check_keywords(keywords, plan)
    section, verified = _verify_of(verify)
    place, watcher, checked = _output_of(output), _progress_of(progress), flag_of(check, "check")
    whole = read_recipe(recipe, overrides, max_memory=max_memory, verify=section, **keywords)
    with _ONE_AT_A_TIME, located(whole.model):
        source = _looked_at(whole, builds=False)
        with loading(watcher):
            from lepton_compile.api.planning import make_plan

        return make_plan(
            whole,
            source,
            watcher,
            output=place,
            check=checked and whole.check,
            verify=verified and whole.verify.enabled,
        )


def load(path: str | PathLike[str], threads: int | None = None, target: str | None = None) -> Model:
    """Open an artifact with the same loader that it carries.

    Args:
        path: the artifact's folder, or what ``build`` gave.
        threads: that the engine computes with; default: the physical cores, in a container no more
            than its quota of processors' time is enough for.
        target: the engine to open, such as ``"ort-cpu"``; default: the best that runs here.

    Returns:
        A ``Model``: ``run`` takes arrays by name; ``generate``, ``embed``, ``classify`` and others
        do what its task can be asked for. ``manifest`` has names, types and shapes of its inputs
        and outputs. It is a context manager; ``close`` lets the engine go.

    Raises:
        LoaderError: of ``lepton_compile.runtime``, and no ``LeptonError``, for the loader stands
            alone: there is no artifact at ``path``, it is not intact, or no such engine of it
            runs here. The model's methods raise it, too, for what they cannot take.
    """
    from lepton_compile.runtime import load as open_model

    return open_model(path, threads=threads, target=target)


def read_recipe(
    recipe: str | Path | Mapping[str, Any] | Recipe | None,
    overrides: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Recipe:
    """A checked recipe from a file or data, with keywords on top."""
    from lepton_compile.recipe import load_recipe

    given = {key: value for key, value in keywords.items() if value is not None}
    dotted = keys_of(overrides, "overrides")
    options = given.keys() - dotted.keys()
    if recipe is None:
        return load_recipe(given, dotted, options=options)
    return load_recipe(recipe, {**given, **dotted}, options=options)


def _looked_at(recipe: Recipe, *, builds: bool) -> Source | None:
    """The recipe's model, where this machine has it; None where it may have to be fetched."""
    keep_to_cores()
    from lepton_compile.api.early import check_buildable, check_early
    from lepton_compile.api.places import source_of

    check_early(recipe)
    if builds:
        check_buildable(recipe)
    if recipe.model.startswith("hf:") or (recipe.adapter or "").startswith("hf:"):
        return None
    return source_of(recipe, weights=builds)


def _check_keywords(keywords: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Each is a key of a recipe; what is near to one may be an argument of the function's own.

    Raises:
        RecipeError: one is not.
    """
    from lepton_compile.recipe import Recipe

    own = inspect.signature(function).parameters
    known = [*Recipe.model_fields, *(name for name in own if name not in Recipe.model_fields)]
    for name in keywords:
        if name in Recipe.model_fields:
            continue
        nearest = get_close_matches(name, known, n=1)
        raise RecipeError(
            f"Unknown key {name!r}.",
            where=f"{function.__name__}({name}=...)",
            found=name,
            available=[each for each in known if each != "keywords"],
            hint=f"Did you mean {nearest[0]!r}?" if nearest else None,
        )


def _verify_of(verify: object) -> tuple[Mapping[str, Any] | None, bool]:
    """The recipe's key of that name, where it is given, and whether to verify."""
    if isinstance(verify, Mapping):
        return verify, True
    return None, flag_of(verify, "verify, where it is no mapping,")


def _output_of(output: object) -> Path | None:
    return None if output is None else path_of(output, "output")


def _progress_of(progress: Any) -> Progress:
    """Nobody, where nobody watches."""
    if progress is None:
        return NullProgress()
    if not all(callable(getattr(progress, name, None)) for name in ("stage", "step")):
        raise UsageError(
            "progress has the methods stage and step", found=f"{progress!r:.80}", available=["None"]
        )
    watcher: Progress = progress
    return watcher
