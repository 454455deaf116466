"""One build, stage by stage: recipe, export, passes, lowering, engine, artifact, verification."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from lepton_compile.api import describe
from lepton_compile.api.fitting import hessians_for, measure_for
from lepton_compile.api.memory import MemoryCeiling
from lepton_compile.artifact import Artifact, ArtifactWriter, Manifest
from lepton_compile.engines import BuiltEngine, EngineJob, builder
from lepton_compile.engines.contract import Step
from lepton_compile.errors import RecipeError
from lepton_compile.export import ExportedModel, Pooling, Source, export, resolve
from lepton_compile.export.tasks import infer_task
from lepton_compile.pipeline import (
    NumericCheck,
    PipelineReport,
    passes_for,
    precision_of,
    run,
)
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe
from lepton_compile.runtime import emit

if TYPE_CHECKING:
    from lepton_compile.api.verification import Verified

__all__ = ["ENGINES", "Build", "pooling_of", "task_of"]

ENGINES = "engines"
"""Folder of the engines in an artifact, one folder for each target in it."""

VERIFIED = "ort-cpu"
"""The target that verification runs."""

# Precision of weights -> the column of a pass' tolerances that the per-pass check holds it to.
CHECKED_AS = {"fp16": "fp32", "bf16": "fp32", "fp8": "int8"}


@dataclass
class _Engine:
    """One finished engine: where it lies, what made it, what its builder said."""

    target: str
    folder: str
    passes: PipelineReport
    built: BuiltEngine


@dataclass
class Build:
    """A build of one recipe. Making one does nothing; ``run`` does it all."""

    recipe: Recipe
    output: Path | None
    check: bool
    verify: bool
    overwrite: bool
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> Artifact:
        """Carry the build out; see ``api.build``."""
        if self.recipe.position_ids:
            raise RecipeError(
                "positions as an input are not available in this version",
                where="position_ids",
                found="true",
                hint="leave it out: positions are derived from the attention mask",
            )
        ceiling = MemoryCeiling(self.recipe.max_memory)
        step = ceiling.watch(self.progress.step)
        output = self._output()
        with ArtifactWriter(output, overwrite=self.overwrite) as writer:
            with self._stage("resolve", self.recipe.model):
                source = resolve(self.recipe.model, self.recipe.base, self.recipe.trust_remote_code)
            # Capture is one busy thread; the digests of what is built from are ready when it ends.
            source.start_digests()
            with self._stage("capture"):
                exported, pooling = self._capture(source, step)
            signature = describe.signature_of(exported.model)
            engines = [
                self._engine(writer.folder, target, model, source, exported, step)
                for target, model in self._copies(exported.model)
            ]
            with self._stage("seal"):
                manifest = self._manifest(
                    writer.folder, source, exported, pooling, signature, engines
                )
                emit(writer.folder, manifest.as_dict())
                artifact = writer.seal(manifest)
            verified = self._verify(artifact, source) if self._verifies(source) else None
            with self._stage("finish"):
                self._report(artifact, exported, engines, verified)
                return writer.publish()

    # -- stages -----------------------------------------------------------------------------

    @contextmanager
    def _stage(self, name: str, detail: str = "") -> Iterator[None]:
        self.progress.stage(name, detail)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _copies(self, model: ir.Model) -> Iterator[tuple[str, ir.Model]]:
        """Each target with a graph of its own; they share the tensors, and the last takes the
        original."""
        *others, last = self.recipe.target
        for target in others:
            yield target, model.clone()
        yield last, model

    def _engine(
        self,
        root: Path,
        target: str,
        model: ir.Model,
        source: Source,
        exported: ExportedModel,
        step: Step,
    ) -> _Engine:
        with self._stage("passes", target):
            passes = self._passes(target, model, source, exported, step)
            if target == self.recipe.target[0]:
                passes.demand(self.recipe.passes.expect)
        with self._stage("build", target):
            folder = root / ENGINES / target
            folder.mkdir(parents=True)
            job = EngineJob(
                model,
                folder,
                self.recipe,
                describe.ranges_of(self.recipe, exported),
                tuple(exported.caches),
                step,
            )
            return _Engine(target, f"{ENGINES}/{target}", passes, builder(target)(job))

    def _output(self) -> Path:
        if self.output is not None:
            return self.output
        if self.recipe.output is not None:
            return Path(self.recipe.output)
        name = self.recipe.model.rstrip("/").split("/")[-1].split(":")[-1].split("@")[0]
        return Path("out") / f"{Path(name).stem or 'model'}-{self.recipe.quantize.format}"

    def _capture(self, source: Source, step: Step) -> tuple[ExportedModel, Pooling | None]:
        if source.kind == "onnx":
            from lepton_compile.export.onnx_file import import_onnx

            return import_onnx(source, self.recipe.task), None
        task = self.recipe.task or task_of(source)
        pooling = pooling_of(self.recipe, source, task)
        wanted = self.recipe.shapes.sequence
        length = wanted[1] if wanted else None
        return export(source, task, length=length, pooling=pooling, progress=step), pooling

    def _passes(
        self, target: str, model: ir.Model, source: Source, exported: ExportedModel, step: Step
    ) -> PipelineReport:
        config = None if source.kind == "onnx" else source.config()
        passes = passes_for(
            self.recipe,
            target,
            length=exported.length,
            config=config,
            hessians=hessians_for(self.recipe, model, source, exported, step),
            measure=measure_for(self.recipe, target, source, exported, step),
        )
        if not self.check or source.kind == "onnx":
            return run(model, passes, progress=step)
        from lepton_compile.api.sample import check_feeds

        precision = precision_of(self.recipe, target, config)
        feeds = check_feeds(source, exported)
        with NumericCheck(feeds, CHECKED_AS.get(precision, precision)) as check:
            check.start(model)
            return run(model, passes, check=check, progress=step)

    def _manifest(
        self,
        folder: Path,
        source: Source,
        exported: ExportedModel,
        pooling: Pooling | None,
        signature: dict[str, list[dict[str, Any]]],
        engines: Sequence[_Engine],
    ) -> Manifest:
        from lepton_compile import __version__

        shared = bool(exported.caches) and all(
            e.passes.fired("lower-cached-attention") == len(exported.caches)
            for e in engines
            if e.target.startswith("ort-")
        )
        config = None if source.kind == "onnx" else source.config().get_text_config()
        order = {e.target: [p.name for p in e.passes.passes] for e in engines}
        return Manifest(
            task=exported.task,
            model=describe.model_entry(source, exported),
            inputs=tuple(signature["inputs"]),
            outputs=tuple(signature["outputs"]),
            ranges=describe.ranges_of(self.recipe, exported, config),
            engines=tuple(self._engine_entry(folder, e, source) for e in engines),
            cache=describe.cache_entry(exported, shared=shared),
            embedding=describe.embedding_entry(pooling, source),
            lock=describe.lock_entry(self.recipe, source, order),
            tools=describe.tool_versions(),
            lepton=__version__,
            **describe.assets(source, folder, exported.task),
        )

    def _engine_entry(self, root: Path, engine: _Engine, source: Source) -> dict[str, Any]:
        config = None if source.kind == "onnx" else source.config()
        inside = (p for p in (root / engine.folder).rglob("*") if p.is_file())
        return {
            "target": engine.target,
            "model": f"{engine.folder}/{engine.built.model}",
            "files": sorted(p.relative_to(root).as_posix() for p in inside),
            "requires": dict(engine.built.requires),
            "precision": precision_of(self.recipe, engine.target, config),
            "executed": self._verifies(source) and engine.target == VERIFIED,
            **engine.built.details,
        }

    def _verifies(self, source: Source) -> bool:
        """Whether an engine is compared with PyTorch: there is one, and this machine can run it."""
        return self.verify and source.kind != "onnx" and VERIFIED in self.recipe.target

    def _verify(self, artifact: Artifact, source: Source) -> Verified:
        from lepton_compile.api.verification import verify_artifact

        with self._stage("verify"):
            return verify_artifact(artifact, source, self.recipe, self.progress)

    def _report(
        self,
        artifact: Artifact,
        exported: ExportedModel,
        engines: Sequence[_Engine],
        verified: Verified | None,
    ) -> None:
        from lepton_compile.report import write_report

        write_report(
            artifact,
            seconds=self.seconds,
            capture={"how": exported.how, "kinds": exported.kinds, "notes": exported.notes},
            passes=[{**p, "target": e.target} for e in engines for p in e.passes.as_dict()],
            builders={e.target: dict(e.built.report) for e in engines if e.built.report},
            verify=verified.report.as_dict() if verified is not None else None,
            gates=[check.as_dict() for check in verified.gates] if verified is not None else (),
        )


def task_of(source: Source) -> str:
    """The task where the recipe names none; a sentence-transformers folder is for embeddings."""
    from lepton_compile.export.assets import pooling

    if source.kind == "folder" and pooling(source) is not None:
        return "feature-extraction"
    return infer_task(source.architecture)


def pooling_of(recipe: Recipe, source: Source, task: str) -> Pooling | None:
    """The sentence embedding the recipe asks for, ``auto`` following the model's own files."""
    from lepton_compile.export.assets import pooling

    if task != "feature-extraction" or recipe.pooling == "none":
        return None
    own = pooling(source) if source.kind == "folder" else None
    kind = recipe.pooling if recipe.pooling != "auto" else (own or {}).get("pooling")
    if kind is None:
        return None
    normalize = recipe.normalize
    if normalize is None:
        normalize = bool(own and own.get("normalize"))
    return Pooling(str(kind), normalize)
