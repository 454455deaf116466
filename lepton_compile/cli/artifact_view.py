"""What an artifact is made of, read without running it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from lepton_compile.artifact import read_manifest
from lepton_compile.artifact.manifest import MANIFEST_FILE, PAGE_FILE, REPORT_FILE
from lepton_compile.cli.cache_text import cache_text
from lepton_compile.cli.onnxfile import ModelSummary, model_tables, summarize
from lepton_compile.cli.output import bytes_text, number_text, table
from lepton_compile.cli.planfile import PlanSummary, is_plan, plan_tables, summarize_plan
from lepton_compile.cli.report_view import report_parts
from lepton_compile.errors import ArtifactError
from lepton_compile.report.pictures import pictures_in

__all__ = ["artifact_tables", "build_lines", "inspect_artifact", "read_json"]

DIGEST_SHOWN = 12


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is none.

    Raises:
        ArtifactError: it is not JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ArtifactError("this file is damaged", where=str(path), found=str(error)) from error


def inspect_artifact(folder: Path) -> tuple[dict[str, Any], bool]:
    """Manifest, state of each file, the graphs and the report; and whether all files are intact.

    Raises:
        ArtifactError: the folder is no artifact, or its manifest is not what was written.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise ArtifactError(
            "this folder is not an artifact",
            where="DIR|FILE",
            found=str(folder),
            hint=f"it has no {MANIFEST_FILE}; name an artifact folder or a .onnx file",
        )
    read_manifest(folder)
    manifest = read_json(folder / MANIFEST_FILE)
    states = {name: _state(folder, name, entry) for name, entry in manifest["files"].items()}
    report = read_json(folder / REPORT_FILE)
    graphs = {
        name: _summary(folder / file, len(_layers(report, target)))
        for target, name, file in _graphs(manifest)
        if states.get(file) == "intact"
    }
    data = {
        "artifact": str(folder),
        "manifest": manifest,
        "files": states,
        "engines": graphs,
        "report": report,
    }
    return data, all(state == "intact" for state in states.values())


def artifact_tables(data: Mapping[str, Any]) -> Iterator[RenderableType]:
    """What ``inspect_artifact`` found, one table after the other."""
    manifest = data["manifest"]
    model = manifest["model"]
    facts = [
        ("model", model.get("source") or "-"),
        *([("adapter", model["adapter"])] if model.get("adapter") else ()),
        ("architecture", model.get("architecture") or "-"),
        ("parameters", number_text(model.get("parameters"))),
        ("task", manifest["task"]),
        ("ranges", ", ".join(f"{k} {a}..{b}" for k, (a, b) in manifest["ranges"].items())),
        ("format", manifest["format"]),
    ]
    if manifest.get("cache"):
        facts.append(("cache", cache_text(manifest)))
    if pictures := pictures_in(manifest):
        facts.append(("a picture", pictures))
    yield table(str(data["artifact"]), ("what", "value"), facts)
    yield f"Digest {manifest.get('digest')}"
    yield _engines(manifest)
    files = [
        (name, bytes_text(entry["size"]), entry["sha256"][:DIGEST_SHOWN], data["files"][name])
        for name, entry in manifest["files"].items()
    ]
    yield table("Files", ("file", "size>", "sha256", "state"), files)
    entries = {entry["target"]: entry for entry in manifest["engines"]}
    for name, summary in data["engines"].items():
        yield Text(f"\nEngine for {name}", "bold")
        if isinstance(summary, PlanSummary):
            yield from plan_tables(summary, entries[name], _layers(data["report"], name))
        else:
            yield from model_tables(summary)
    yield from _report(data["report"])


def _report(report: Any) -> Iterator[RenderableType]:
    """What a build said; no digest vouches for it, and another version may have written it."""
    try:
        yield from list(report_parts(report or {}))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        yield f"Note: {REPORT_FILE} cannot be shown: {type(error).__name__}: {error}"


def _graphs(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Target, name and file of each graph: of an encoder-decoder two for a target."""
    for engine in manifest["engines"]:
        target = engine["target"]
        if engine.get("encoder"):
            yield target, f"{target}, encoder", engine["encoder"]
        yield target, target, engine["model"]


def _summary(path: Path, layers: int) -> ModelSummary | PlanSummary:
    return summarize_plan(path, layers) if is_plan(path) else summarize(path)


def _layers(report: Mapping[str, Any] | None, target: str) -> list[dict[str, Any]]:
    """Layers of the network that a target's builder parsed; none where no report has them."""
    try:
        builders = (report or {}).get("builders") or {}
        return list((builders.get(target) or {}).get("layers") or ())
    except (AttributeError, TypeError):  # of another form: the rest can be shown
        return []


def _engines(manifest: Mapping[str, Any]) -> RenderableType:
    """What each engine is, and whether it ever ran."""
    sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
    rows = [
        (
            e["target"],
            bytes_text(sum(sizes.get(name, 0) for name in e["files"])),
            e["precision"],
            "yes" if e.get("executed") else "never executed",
            _requirements(e),
        )
        for e in manifest["engines"]
    ]
    return table("Engines", ("target", "size>", "precision", "executed", "requires"), rows)


def build_lines(folder: Path) -> Iterator[RenderableType]:
    """What to say after a build."""
    manifest, report = read_json(folder / MANIFEST_FILE), read_json(folder / REPORT_FILE) or {}
    size = sum(entry["size"] for entry in manifest["files"].values())
    engines = ", ".join(f"{e['target']} {e['precision']}" for e in manifest["engines"])
    yield Text.assemble((f"{folder}", "bold"), f"  {engines}, {bytes_text(size)}")
    yield from report_parts(report)
    if (folder / PAGE_FILE).is_file():
        yield f"Report: {folder / PAGE_FILE}"
    unseen = [e["target"] for e in manifest["engines"] if not e.get("executed")]
    if unseen:
        yield f"executed: false ({', '.join(unseen)}: built, never run)"


def _requirements(engine: Mapping[str, Any]) -> str:
    packages = [f"{name}{version}" for name, version in engine["requires"].items()]
    kernels = engine.get("kernels")
    machine = [f"{kernels['system']} {kernels['machine']}"] if kernels else []
    return ", ".join([*packages, *machine])


def _state(folder: Path, name: str, entry: Mapping[str, Any]) -> str:
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that no file has
        return "missing"
    if not inside:
        return "outside the artifact"
    if not path.is_file():
        return "missing"
    if path.stat().st_size != entry["size"]:
        return f"damaged: {bytes_text(path.stat().st_size)}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return "intact" if found == entry["sha256"] else "damaged: another digest"
