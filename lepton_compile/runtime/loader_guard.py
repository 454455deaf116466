"""What is checked before anything is opened."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = [
    "CALLS",
    "FORMAT",
    "MIN_FORMAT",
    "TENSOR",
    "LoaderError",
    "UnfitError",
    "check_digests",
    "check_form",
    "failing",
    "manifest_of",
    "refuse",
]

CALLS = "generate transcribe entities words vectors classify answer fill embed logits run"
FORMAT, MIN_FORMAT = 1, 1
# What is read of a manifest: a type or several, [of each], a pair, {key: of its value}. * is any
# key, and what stands under a key with ? may be missing or null. No number is below zero.
TENSOR = {"name": str, "dtype": str, "shape": [(int, str)], "optional?": bool}
MODEL = {"task": str, "inputs": [TENSOR], "outputs": [TENSOR], "labels?": {"*": str}, "score?": str}
RANGES = {"batch": [int, int], "sequence": [int, int], "*": [int, int]}
EMBEDS = {"output": str, "max_tokens?": int, "prompt?": str, "prompts?": {"*": str}}
KERNELS = {"library": str, "system": str, "machine": str, "piece?": int, "slice?": int}
ENGINE = {"target": str, "model": str, "files": [str], "requires": {"*": str}, "kernels?": KERNELS}
FILES = {"engines": [ENGINE], "files": {"*": {"size": int, "sha256": str}}}
FORM = {**MODEL, "ranges": RANGES, "tokenizer?": {"*?": str}, "embedding?": EMBEDS, **FILES}


class LoaderError(Exception):
    """The artifact is not intact, or a call cannot be carried out as written."""


class UnfitError(LoaderError):
    """An engine is intact but cannot run on this machine; another of the artifact may."""


def refuse(wrong: Any, why: str, error: type[LoaderError] = LoaderError) -> None:
    """Raise ``error`` with the reason ``why`` if something is ``wrong``."""
    if wrong:
        raise error(why)


@contextmanager
def failing(what: str, error: type[LoaderError] = LoaderError) -> Iterator[None]:
    """What fails or panics (Rust) inside is raised as ``error``, saying that ``what`` failed."""
    try:
        yield
    except BaseException if "Panic" in str(sys.exc_info()[0]) else Exception as reason:  # noqa: B030
        raise error(f"{what}: {reason}") from reason


def manifest_of(root: Path) -> dict[str, Any]:
    """The manifest in ``root``, once it holds, but for digests of what only engines list."""
    refuse(not os.path.isfile(root / "manifest.json"), f"{root} is no artifact: no manifest.json")
    with failing(f"{root / 'manifest.json'} is damaged"):
        manifest: dict[str, Any] = json.loads((root / "manifest.json").read_bytes())
    check_form(manifest, {"format": int, "min_format": int, "digest": str}, "manifest")
    bad = manifest["min_format"] > FORMAT or manifest["format"] < MIN_FORMAT
    refuse(bad, f"format {manifest['format']}; this loader reads {MIN_FORMAT} to {FORMAT}")
    told, text = manifest.pop("digest"), json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    bad = hashlib.sha256(text.encode()).hexdigest() != told
    refuse(bad, "manifest.json is damaged: it does not match its own digest")
    check_form(manifest, FORM, "manifest")
    if any(engine["target"] != "ort-cpu" for engine in manifest["engines"]):
        from lepton_compile.runtime.loader_gpu_form import GPU

        check_form(manifest, GPU, "manifest")
    if manifest.get("cache") or manifest.get("generation"):
        from lepton_compile.runtime.loader_decoder_form import DECODER

        check_form(manifest, DECODER, "manifest")
        most = (manifest["generation"] or {"vocabulary": sys.maxsize})["vocabulary"] - 1
        manifest["ranges"].setdefault("input_ids", [0, most])
    if manifest.get("generation"):
        from lepton_compile.runtime.loader_ruled import check_ruled

        check_ruled(manifest["generation"])
    if manifest["task"] in ("text2text-generation", "automatic-speech-recognition"):
        from lepton_compile.runtime.loader_source import check_source

        check_source(manifest)
    if manifest["task"] == "image-text-to-text":
        from lepton_compile.runtime.loader_seer import check_pictures

        check_pictures(manifest)
    if (manifest.get("cache") or {}).get("reread") is not None:
        from lepton_compile.runtime.loader_reread import REREAD

        check_form(manifest, REREAD, "manifest")
    if manifest["task"] == "multi-vector-embedding":
        from lepton_compile.runtime.loader_vectors import ROLES

        check_form(manifest, ROLES, "manifest")
    if manifest["task"].startswith("image-"):
        from lepton_compile.runtime.loader_pixels import PICTURE

        check_form(manifest, PICTURE, "manifest")
    for name, entry in (files := manifest["files"]).items():
        parts, path = PurePosixPath(name.replace("\\", "/")), root / name
        bad = parts.is_absolute() or ".." in parts.parts or path.drive != root.drive
        refuse(bad, f"manifest.json names a file outside the artifact: {name}")
        refuse(not os.path.isfile(path), f"{name} is missing from {root}")
        size, bad = path.stat().st_size, not path.resolve().is_relative_to(root)
        refuse(bad, f"{name} links to outside the artifact: open a copy without links (cp -rL)")
        refuse(size != entry["size"], f"{name} is damaged: {size} bytes, not {entry['size']}")
    engines = {n for e in manifest["engines"] for n in [e["model"], *e["files"]]}
    lost = {*engines, *filter(None, (manifest["tokenizer"] or {}).values())} - files.keys()
    refuse(lost, f"manifest.json uses {sorted(lost)} without giving their digests")
    check_digests(root, manifest, files.keys() - engines)
    return manifest


def check_form(value: Any, form: Any, where: str) -> None:
    """Refuse a ``value``, ``where`` in the manifest, of another form; what is missing gets null."""
    kind = type(form) if isinstance(form, dict | list) else form
    fits = isinstance(value, kind) and (not isinstance(value, int) or 0 <= value <= sys.maxsize)
    for number, item in enumerate(value if fits and kind is list else ()):
        check_form(item, form[0], f"{where}[{number}]")
    for key, inner in form.items() if fits and kind is dict else ():
        for name in [*value] if key[0] == "*" else [key.rstrip("?")]:
            if (found := value.setdefault(name)) is not None or key[-1] != "?":
                check_form(found, inner, f"{where}.{name}")
    if not fits or (form == [int, int] and (len(value) != 2 or value[0] > value[1])):
        raise LoaderError(f"manifest.json is damaged: {where} cannot be {value!r:.60}")


def check_digests(root: Path, manifest: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse if one of the files has another SHA-256 than the manifest says."""
    for n in sorted(names):
        with failing(f"{n} cannot be read"), (root / n).open("rb") as file:
            bad = hashlib.file_digest(file, "sha256").hexdigest() != manifest["files"][n]["sha256"]
        refuse(bad, f"{n} is damaged, or was replaced: its SHA-256 is not the manifest's")
