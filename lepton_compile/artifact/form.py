"""The types of what is read of a manifest: a loader's, and what this package reads besides.

The runtime is imported when a manifest is checked: it takes numpy along.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import PurePosixPath
from typing import Any

from lepton_compile.errors import ArtifactError

__all__ = ["check_manifest"]

# As in ``runtime.loader_guard``: what stands under a key with ? may be missing or null.
MODEL = {
    "source?": str,
    "adapter?": str,
    "architecture?": str,
    "model_type?": str,
    "parameters?": int,
    "trust_remote_code?": bool,
}
PROFILE = {end: {"*": [int]} for end in ("min", "opt", "max")}
TACTICS = {"layers": [{"kernel": str}]}
ENGINE = {
    "precision": str,
    "executed?": bool,
    "kernels?": {"library": str, "system": str, "machine": str, "compiler?": str},
    "attention?": {"layers": int, "forms": {"*": int}},
    "profiles?": [{"name": str, **PROFILE}],
    "network?": str,
    "tactics?": TACTICS,
}
LOCK = {
    "code?": str,
    "inputs?": {"*": str},
    "revision?": str,
    "calibration?": str,
    "passes?": {"*": [str]},
    "recipe?": {},
    "chosen?": {"*": {}},
    "machine?": {"processor?": str, "features?": [str]},
}
GATES = {"*": {"*?": (int, float)}}
TEXT = {"path": str, "sha256": str}
OURS = {
    "lepton": str,
    "model": MODEL,
    "engines": [ENGINE],
    "lock?": LOCK,
    "tools?": {"*": str},
    "demands?": {"gates?": GATES, "tokens?": int, "text?": TEXT},
}


def check_manifest(document: dict[str, Any]) -> None:
    """Everything that is read of a manifest has the type that ``FORMAT.md`` gives it.

    Raises:
        ArtifactError: something has not, or is missing; the key is told.
    """
    from lepton_compile.runtime.loader_decoder_form import DECODER
    from lepton_compile.runtime.loader_gpu_form import GPU
    from lepton_compile.runtime.loader_guard import FORM, LoaderError, check_form

    try:
        copy = deepcopy(document)  # what is missing becomes null in it
        for form in (FORM, GPU, DECODER, OURS):
            check_form(copy, form, "manifest")
    except LoaderError as error:
        where, _, found = str(error).partition(": ")[2].partition(" cannot be ")
        raise ArtifactError("the manifest is damaged", where=where, found=found) from error
    except RecursionError as error:
        raise ArtifactError("the manifest is damaged", found=str(error)) from error
    _check_listed(copy)
    _check_cache(copy["cache"] or {})


def _check_listed(manifest: dict[str, Any]) -> None:
    """What the manifest uses it gives a digest of."""
    engines = [name for each in manifest["engines"] for name in (each["model"], *each["files"])]
    libraries = {_library(each) for each in manifest["engines"] if each["kernels"]}
    used = {*engines, *libraries, *filter(None, (manifest["tokenizer"] or {}).values())}
    if unlisted := sorted(used - manifest["files"].keys()):
        raise ArtifactError(
            "the manifest uses files without giving their digests",
            where="manifest.files",
            found=", ".join(unlisted),
        )


def _library(engine: dict[str, Any]) -> str:
    """Where the loader looks for the kernels of an engine: beside its model."""
    return str(PurePosixPath(engine["model"]).parent / engine["kernels"]["library"])


def _check_cache(cache: dict[str, Any]) -> None:
    """Names of what the cache consists of can be made."""
    for way in ("past", "present") if cache else ():
        try:
            cache[way].format(layer=0, kind="key")
        except (AttributeError, LookupError, ValueError, MemoryError) as error:
            raise ArtifactError(
                "the manifest is damaged",
                where=f"manifest.cache.{way}",
                found=cache[way],
                available=["a name with {layer} and {kind}"],
            ) from error
