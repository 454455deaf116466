"""One build, stage by stage: recipe, export, passes, lowering, engine, artifact, verification."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from lepton_compile.api import describe
from lepton_compile.api.memory import MemoryCeiling
from lepton_compile.artifact import Artifact, ArtifactWriter, Manifest
from lepton_compile.errors import RecipeError, UsageError
from lepton_compile.export import ExportedModel, Pooling, Source, export, resolve
from lepton_compile.export.tasks import infer_task
from lepton_compile.pipeline import NumericCheck, PipelineReport, passes_for, run
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe

if TYPE_CHECKING:
    from lepton_compile.api.verification import Verified

__all__ = ["Build", "pooling_of", "task_of"]

TARGET = "ort-cpu"
ENGINE_FOLDER = f"engines/{TARGET}"
REQUIRES = {"onnxruntime": ">=1.30"}


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
        self._refuse_targets()
        if self.recipe.position_ids:
            raise RecipeError(
                "positions as an input are not available in this version",
                where="position_ids",
                found="true",
                hint="leave it out: positions are derived from the attention mask",
            )
        ceiling = MemoryCeiling(self.recipe.max_memory)
        output = self._output()
        with ArtifactWriter(output, overwrite=self.overwrite) as writer:
            with self._stage("resolve", self.recipe.model):
                source = resolve(self.recipe.model, self.recipe.base, self.recipe.trust_remote_code)
            with self._stage("capture"):
                exported, pooling = self._capture(source, ceiling.watch(self.progress.step))
            with self._stage("passes"):
                passes = self._passes(exported, source, ceiling.watch(self.progress.step))
                passes.demand(self.recipe.passes.expect)
            with self._stage("write"):
                signature = describe.signature_of(exported.model)
                self._write(writer.folder, exported.model, ceiling.watch(self.progress.step))
                manifest = self._manifest(
                    writer.folder, source, exported, pooling, signature, passes
                )
                artifact = writer.seal(manifest)
            verified = self._verify(artifact, source) if self.verify else None
            with self._stage("finish"):
                self._report(artifact, exported, passes, verified)
                return writer.publish()

    # -- stages -----------------------------------------------------------------------------

    @contextmanager
    def _stage(self, name: str, detail: str = "") -> Iterator[None]:
        self.progress.stage(name, detail)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start

    def _refuse_targets(self) -> None:
        others = [target for target in self.recipe.target if target != TARGET]
        if others:
            raise UsageError(
                "this version cannot build for this target",
                where="target",
                found=", ".join(others),
                available=[TARGET],
                hint="see `lepton-compile targets`",
            )

    def _output(self) -> Path:
        if self.output is not None:
            return self.output
        if self.recipe.output is not None:
            return Path(self.recipe.output)
        name = self.recipe.model.rstrip("/").split("/")[-1].split(":")[-1].split("@")[0]
        return Path("out") / f"{Path(name).stem or 'model'}-{self.recipe.quantize.format}"

    def _capture(
        self, source: Source, step: Callable[[str, int, int], None]
    ) -> tuple[ExportedModel, Pooling | None]:
        if source.kind == "onnx":
            from lepton_compile.export.onnx_file import import_onnx

            return import_onnx(source, self.recipe.task), None
        task = self.recipe.task or task_of(source)
        pooling = pooling_of(self.recipe, source, task)
        wanted = self.recipe.shapes.sequence
        length = wanted[1] if wanted else None
        return export(source, task, length=length, pooling=pooling, progress=step), pooling

    def _passes(
        self, exported: ExportedModel, source: Source, step: Callable[[str, int, int], None]
    ) -> PipelineReport:
        passes = passes_for(self.recipe, TARGET)
        if not self.check or source.kind == "onnx":
            return run(exported.model, passes, progress=step)
        from lepton_compile.api.sample import check_feeds

        feeds = check_feeds(source, exported)
        with NumericCheck(feeds, describe.precision_of(self.recipe)) as check:
            check.start(exported.model)
            return run(exported.model, passes, check=check, progress=step)

    def _write(self, folder: Path, model: ir.Model, step: Callable[[str, int, int], None]) -> None:
        from lepton_compile.engines.ort_cpu.build import build as build_engine
        from lepton_compile.runtime import emit

        engine = folder / ENGINE_FOLDER
        engine.mkdir(parents=True)
        build_engine(model, engine, step)
        emit(folder)

    def _manifest(
        self,
        folder: Path,
        source: Source,
        exported: ExportedModel,
        pooling: Pooling | None,
        signature: dict[str, list[dict[str, Any]]],
        passes: PipelineReport,
    ) -> Manifest:
        from lepton_compile import __version__

        shared = bool(exported.caches) and passes.fired("lower-cached-attention") == len(
            exported.caches
        )
        files = sorted(p.relative_to(folder).as_posix() for p in (folder / ENGINE_FOLDER).iterdir())
        engine = {
            "target": TARGET,
            "model": f"{ENGINE_FOLDER}/model.onnx",
            "files": files,
            "requires": REQUIRES,
            "precision": describe.precision_of(self.recipe),
            "executed": self.verify,
        }
        return Manifest(
            task=exported.task,
            model=describe.model_entry(source, exported),
            inputs=tuple(signature["inputs"]),
            outputs=tuple(signature["outputs"]),
            ranges=describe.ranges_of(self.recipe, exported),
            engines=(engine,),
            cache=describe.cache_entry(exported, shared=shared),
            embedding=describe.embedding_entry(pooling),
            lock=describe.lock_entry(self.recipe, source, [p.name for p in passes.passes]),
            tools=describe.tool_versions(),
            lepton=__version__,
            **describe.assets(source, folder, exported.task),
        )

    def _verify(self, artifact: Artifact, source: Source) -> Verified | None:
        from lepton_compile.api.verification import verify_artifact

        if source.kind == "onnx":
            return None  # there is no PyTorch model to compare with
        with self._stage("verify"):
            return verify_artifact(artifact, source, self.recipe, self.progress)

    def _report(
        self,
        artifact: Artifact,
        exported: ExportedModel,
        passes: PipelineReport,
        verified: Verified | None,
    ) -> None:
        from lepton_compile.report import write_report

        write_report(
            artifact,
            seconds=self.seconds,
            capture={"how": exported.how, "kinds": exported.kinds, "notes": exported.notes},
            passes=passes.as_dict(),
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
