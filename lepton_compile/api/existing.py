"""The Python surface of what exists: build an artifact again, verify it, measure it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_compile.api.calls import (
    ONE_AT_A_TIME,
    looked_at,
    optional,
    progress_of,
    spec_of,
    told_in,
)
from lepton_compile.api.libraries import keep_to_cores, loading
from lepton_compile.arguments import flag_of, keys_of, names_of, number_of, path_of
from lepton_compile.errors import located
from lepton_compile.progress import Progress

if TYPE_CHECKING:
    from lepton_compile.api.rebuilding import Rebuilt
    from lepton_compile.api.verifying import Verification

__all__ = ["bench", "rebuild", "verify"]


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

    given, place = path_of(path, "path"), optional(output, path_of, "output")
    where = optional(model, spec_of, "model")
    replaces, trusted = (
        flag_of(overwrite, "overwrite"),
        flag_of(trust_remote_code, "trust_remote_code"),
    )
    watcher = progress_of(progress)
    manifest = manifest_in(given) if given.is_file() else open_artifact(given).manifest
    with ONE_AT_A_TIME, located(given):
        from lepton_compile.api.recorded import Recorded

        recorded = Recorded(manifest, given)
        recipe = recorded.recipe(where, trusted=trusted)
        with told_in(recipe):
            source = looked_at(recipe, builds=True)
            with loading(watcher):
                from lepton_compile.api.rebuilding import run_again

            return run_again(
                recipe, source, recorded, output=place, overwrite=replaces, progress=watcher
            )


def verify(
    path: str | PathLike[str],
    *,
    model: str | Path | None = None,
    target: str | Sequence[str] | None = None,
    text: str | Path | None = None,
    tokens: int | None = None,
    gates: Mapping[str, Any] | None = None,
    threads: int | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Compare an artifact with the fp32 PyTorch model it came from, and hold it to its gates.

    Args:
        path: the artifact's folder, or what ``build`` gave.
        model: where the model is by now; any that is named is taken.
        target: engines to verify; default: all that run here.
        text: file to compare on; default: what the build compared on.
        tokens: how many of it; default: as built.
        gates: demands in place of the recipe's, by name; None drops one.
        threads: that engines compute with.
        trust_remote_code: Python files that come with the model may run.
        progress: told about stages and steps.

    Returns:
        A ``Verification``: of each of its ``engines`` the ``report`` and the ``gates``;
        ``as_dict()`` is JSON-ready.

    Raises:
        GateError: a demanded number was missed; its ``report`` is that ``as_dict()``.
        UsageError: an argument is of another type than it is said to be, or names no engine.
        RecipeError: no such gate, or one of a number that the artifact's task does not have.
        SourceError: the model is not there, or is another by now.
        ArtifactError: there is no artifact at ``path``.
        EngineError: no engine runs here, or the fp32 model has no room.
    """
    from lepton_compile.recipe import load_recipe

    folder, where = path_of(path, "path"), optional(model, spec_of, "model")
    demanded = load_recipe({"model": "-", "gates": dict(keys_of(gates, "gates"))}).gates
    with ONE_AT_A_TIME, located(folder):
        keep_to_cores()
        from lepton_compile.api.verifying import run_verification

        found = run_verification(
            folder,
            model=where,
            targets=names_of(target, "target"),
            text=optional(text, path_of, "text"),
            tokens=optional(tokens, number_of, "tokens"),
            gates=demanded.model_dump(exclude_unset=True),
            threads=optional(threads, number_of, "threads"),
            trusted=flag_of(trust_remote_code, "trust_remote_code"),
            progress=progress_of(progress),
        )
        found.enforce()
    return found


def bench(
    path: str | PathLike[str],
    *,
    model: str | Path | None = None,
    eager: bool = True,
    rounds: int | None = None,
    threads: int | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure an artifact's speed, load time, memory and size, next to PyTorch eager in turn.

    What was measured goes into the artifact's report, too.

    Args:
        path: the artifact's folder, or what ``build`` gave.
        model: where the model is by now; any that is named is taken.
        eager: run PyTorch beside it; where it cannot be, the engine is measured alone.
        rounds: of each case; default: as many as take some seconds.
        threads: that both compute with; default: as ``load``.
        trust_remote_code: Python files that come with the model may run.
        progress: told about stages and steps.

    Returns:
        ``cases`` with percentiles in milliseconds and tokens a second, ``start`` (load time and
        peak memory), ``bytes_on_disk``, ``machine``, ``target``, and in ``eager_left_out`` why
        PyTorch was not run, or None: JSON-ready.

    Raises:
        UsageError: an argument is of another type than it is said to be.
        SourceError: the ``model`` named is not there.
        ArtifactError: there is no artifact at ``path``.
        EngineError: no engine opens here, or it fails while it is measured.
    """
    folder, where = path_of(path, "path"), optional(model, spec_of, "model")
    with ONE_AT_A_TIME, located(folder):
        keep_to_cores()
        from lepton_compile.api.benching import run_bench

        data, _ = run_bench(
            folder,
            model=where,
            eager=flag_of(eager, "eager"),
            rounds=optional(rounds, number_of, "rounds"),
            threads=optional(threads, number_of, "threads"),
            trusted=flag_of(trust_remote_code, "trust_remote_code"),
            progress=progress_of(progress),
        )
    return data
