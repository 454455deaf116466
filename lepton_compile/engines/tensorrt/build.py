"""Build one engine: plan, write the graph, let the child build, check, describe."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from lepton_compile.artifact.write import file_entry
from lepton_compile.engines.contract import BuiltEngine, EngineJob
from lepton_compile.engines.model_file import MODEL_FILE, flatten, write_model
from lepton_compile.engines.tensorrt.asked import asked_of, compare
from lepton_compile.engines.tensorrt.baked_plugin import bake_plugin
from lepton_compile.engines.tensorrt.capabilities import (
    built_for,
    check_capabilities,
    check_dtypes,
    check_plugin,
    hardware_level,
)
from lepton_compile.engines.tensorrt.details import attention_of, details_of, rooms_of
from lepton_compile.engines.tensorrt.flavour import Flavour
from lepton_compile.engines.tensorrt.order import Order, Profile
from lepton_compile.engines.tensorrt.plan_header import LENGTH, check_header
from lepton_compile.engines.tensorrt.plugin_files import PLUGIN_FOLDER, write_plugin
from lepton_compile.engines.tensorrt.plugins import plugin_domains
from lepton_compile.engines.tensorrt.process import Event, run_child
from lepton_compile.engines.tensorrt.profiles import profiles_for
from lepton_compile.errors import EngineError

__all__ = ["PLAN_FILE", "build_engine"]

PLAN_FILE = "model.plan"


def build_engine(job: EngineJob, flavour: Flavour, timing_cache: Path | None = None) -> BuiltEngine:
    """An engine for one of the two libraries; see ``engines.contract``.

    Args:
        timing_cache: where measurements of kernels are kept from build to build.

    Raises:
        EngineError: the library is missing, a GPU that was asked for has not the graph's types, or
            the library refused the graph. Nothing is left in the folder.
        RecipeError: the library does not build for a GPU that was asked for.
    """
    version = _installed(flavour)
    capabilities = check_capabilities(job.recipe.compute_capabilities, flavour)
    check_dtypes(job.model, capabilities, flavour)
    check_plugin(job.recipe.plugin, flavour)
    rooms = rooms_of(job)
    profiles = profiles_for(
        job.model.graph.inputs,
        job.ranges,
        decoder=bool(job.caches),
        objective=job.recipe.objective,
        rooms=rooms,
        joint=job.recipe.profiles == "joint",
    )
    attention = attention_of(job.model)
    flatten(job.model)
    baked = None
    if job.recipe.plugin == "aot":
        baked = bake_plugin(job.model, capabilities, job.step)
    gpus = built_for(job.model, capabilities, flavour)
    details = details_of(job, attention, gpus, profiles)
    asked = asked_of(job.model, plugin_domains(job.model))
    network: Event = {}

    def look(event: Event) -> None:
        if event["event"] == "network":
            compare(asked, event["layers"], flavour)
            network.update(event)

    with _scratch(job.folder) as scratch:
        plugin = scratch / PLUGIN_FOLDER
        details["plugin"] = None
        if baked is None:
            details["plugin"] = write_plugin(job.model, plugin, capabilities, flavour, job.step)
        details["network"] = _digest(write_model(job.model, scratch, job.step))
        order = _order(flavour, scratch, profiles, capabilities, timing_cache, baked)
        order.write(scratch / "order.json")
        limit = job.recipe.max_memory
        built = run_child(scratch / "order.json", flavour, step=job.step, look=look, limit=limit)
        with open(order.plan, "rb") as file:
            if flavour.capabilities:
                check_header(file.read(LENGTH), built["version"], capabilities)
            os.fsync(file.fileno())
        if details["plugin"]:
            os.replace(plugin, job.folder / PLUGIN_FOLDER)
        os.replace(order.plan, job.folder / PLAN_FILE)
    requires = {flavour.package: f"=={version}", "cuda-bindings": ">=13"}
    return BuiltEngine(PLAN_FILE, requires, details, _report(built, network))


def _order(
    flavour: Flavour,
    scratch: Path,
    profiles: list[Profile],
    capabilities: list[str],
    timing_cache: Path | None,
    baked: int | None,
) -> Order:
    plugin, cross = scratch / PLUGIN_FOLDER, bool(flavour.capabilities)
    return Order(
        module=flavour.module,
        libraries=flavour.libraries,
        model=str(scratch / MODEL_FILE),
        plan=str(scratch / PLAN_FILE),
        links=str(scratch / "links"),
        profiles=profiles,
        capabilities=capabilities if cross else [],
        hardware="NONE" if cross else hardware_level(capabilities),
        plugins=[str(plugin)] if plugin.is_dir() else [],
        baked=baked,
        timing_cache=str(timing_cache) if timing_cache else None,
    )


def _installed(flavour: Flavour) -> str:
    try:
        return metadata.version(flavour.package)
    except metadata.PackageNotFoundError:
        raise EngineError(
            f"{flavour.title} is not installed",
            where=f"target: {flavour.target}",
            hint=flavour.install,
        ) from None


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A private folder on the artifact's filesystem, gone when the block ends."""
    path = Path(tempfile.mkdtemp(prefix=".build-", dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _digest(files: Iterable[Path]) -> str:
    """SHA-256 of what the builder is given: two plans of one network may differ in a few bytes."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(bytes.fromhex(file_entry(path).sha256))
    return digest.hexdigest()


def _report(built: Event, network: Event) -> dict[str, Any]:
    return {
        "version": built["version"],
        "seconds": {name: round(value, 3) for name, value in built["seconds"].items()},
        "peak_memory": built["peak_memory"],
        "plan_bytes": built["bytes"],
        "counts": network["counts"],
        "layers": network["layers"],
        "log": built["log"],
    }
