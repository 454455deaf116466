"""The Python surface: ``build``, ``verify``, ``rebuild``, ``bench``, ``plan`` and ``load``.

``build`` is the only function that joins the stages; each arrow of the flow is one call in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.api.calls import (
    ONE_AT_A_TIME,
    check_keywords,
    looked_at,
    optional,
    progress_of,
    told_in,
    verify_of,
)
from lepton_compile.api.existing import bench, rebuild, verify
from lepton_compile.api.libraries import loading
from lepton_compile.arguments import flag_of, keys_of, path_of
from lepton_compile.errors import located
from lepton_compile.progress import Progress

if TYPE_CHECKING:
    from lepton_compile.api.planning import Plan
    from lepton_compile.artifact import Artifact
    from lepton_compile.recipe import Recipe
    from lepton_compile.runtime import Model

__all__ = ["bench", "build", "load", "plan", "read_recipe", "rebuild", "verify"]


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
    check_keywords(keywords, build)
    section, verified = verify_of(verify)
    place, watcher = optional(output, path_of, "output"), progress_of(progress)
    checked, replaces = flag_of(check, "check"), flag_of(overwrite, "overwrite")
    whole = read_recipe(recipe, overrides, max_memory=max_memory, verify=section, **keywords)
    # Only now: a mistake in the recipe, or the model, is told before the libraries are loaded.
    with ONE_AT_A_TIME, told_in(whole):
        source = looked_at(whole, builds=True)
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
    check_keywords(keywords, plan)
    section, verified = verify_of(verify)
    place, watcher = optional(output, path_of, "output"), progress_of(progress)
    checked = flag_of(check, "check")
    whole = read_recipe(recipe, overrides, max_memory=max_memory, verify=section, **keywords)
    with ONE_AT_A_TIME, located(whole.model), told_in(whole):
        source = looked_at(whole, builds=False)
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
        threads: how many the engine computes with; default: the physical cores, in a container no
            more than its CPU quota is enough for.
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
