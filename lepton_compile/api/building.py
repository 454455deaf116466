"""One build, stage by stage: recipe, export, passes, lowering, engine, artifact, verification."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from lepton_compile.api import describe
from lepton_compile.api.capturing import captured
from lepton_compile.api.choosing import tactics_for
from lepton_compile.api.comparing import Comparing
from lepton_compile.api.demands import demands_entry, ways_out
from lepton_compile.api.early_model import check_model, own_kernels
from lepton_compile.api.findings import Findings, forget_failure, keep_failure
from lepton_compile.api.fitting import (
    cache_measure_for,
    energies_for,
    hessians_for,
    measure_for,
)
from lepton_compile.api.in_place import in_place
from lepton_compile.api.libraries import in_one_order
from lepton_compile.api.memory import MemoryCeiling
from lepton_compile.api.mixing import chosen_bits
from lepton_compile.api.pictures import picture_shape, sees
from lepton_compile.api.places import SHARED, copies_of, output_of, place_of, source_of
from lepton_compile.api.recorded import Recorded
from lepton_compile.api.refusals import blaming, weights_named
from lepton_compile.api.stored import with_stored_bits
from lepton_compile.api.task import config_of
from lepton_compile.artifact import Artifact, ArtifactWriter, Manifest
from lepton_compile.engines import BuiltEngine, EngineJob, builder
from lepton_compile.engines.contract import Step
from lepton_compile.engines.ort_cpu.kernels import Kernels
from lepton_compile.engines.weights_file import WeightStore
from lepton_compile.errors import GateError, PassError, located
from lepton_compile.export import ExportedModel, Pooling, Source
from lepton_compile.export.generation_rules import left_out
from lepton_compile.numerics.gates import enforce
from lepton_compile.pipeline import (
    NumericCheck,
    PipelineReport,
    expected_counts,
    passes_for,
    precision_of,
    run,
)
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe
from lepton_compile.runtime import emit

__all__ = ["Build"]

# Precision of weights -> the column of a pass' tolerances that the per-pass check holds it to.
CHECKED_AS = {"fp16": "fp32", "bf16": "fp32", "fp8": "int8", "auto": "int4", "stored": "int4"}
AGAIN = "built again as the manifest says, to the same bytes: the build before compared them"


@dataclass
class _Engine:
    """One finished engine: where it lies, what made it, what its builder said."""

    target: str
    folder: str
    passes: PipelineReport
    built: BuiltEngine


@dataclass
class Build:
    """A build of one recipe. Making one does nothing; ``run`` does it all.

    Attributes:
        source: its model, where that was found before; the hub's is fetched in its stage.
        recorded: an earlier build, whose decisions are taken and whose bytes are to come out.
    """

    recipe: Recipe
    source: Source | None
    output: Path | None
    check: bool
    verify: bool
    overwrite: bool
    progress: Progress
    recorded: Recorded | None = None
    found: Findings = field(default_factory=Findings)
    _store: WeightStore = field(default_factory=WeightStore, init=False, repr=False)
    _kernels: Kernels = field(default=Kernels(False), init=False, repr=False)
    _left_out: list[str] = field(default_factory=list, init=False, repr=False)

    def run(self) -> Artifact:
        """Carry the build out; see ``api.build``."""
        output = self._output()
        try:
            artifact = self._run(output)
        except BaseException as error:
            self._kernels.abandon()
            if isinstance(error, GateError | PassError) and self.recorded is None:
                keep_failure(output, self.found, error)
            raise
        forget_failure(output)
        return artifact

    def _run(self, output: Path) -> Artifact:
        flags = {"--no-check": self.check, "--no-verify": self.verify}
        ceiling = MemoryCeiling(self.recipe.max_memory, [n for n, on in flags.items() if on])
        step = ceiling.watch(self.progress.step)
        with ArtifactWriter(output, overwrite=self.overwrite) as writer:
            with self._stage("resolve", self.recipe.model):
                source = self.source or source_of(self.recipe)
                if self.recorded is None:
                    check_model(self.recipe, source)
                else:
                    self.recorded.check_inputs(source)
                self._kernels = own_kernels(self.recipe, source)
            # Capture is one busy thread; the digests of what is built from, and the kernels, are
            # ready when it ends.
            source.start_digests()
            self._kernels.start()
            with self._stage("capture"):
                exported, pooling = captured(self.recipe, source, step)
            self._know(source, exported)
            comparing = Comparing(self.recipe, source, exported, ceiling, self.check, self.verify)
            signature = describe.signature_of(exported.model)
            with in_one_order():
                engines = [
                    self._engine(writer.folder, target, model, source, exported, step, comparing)
                    for target, model in copies_of(exported.model, self.recipe.target)
                ]
            with self._stage("seal"):
                manifest = self._manifest(
                    writer.folder, source, exported, pooling, signature, engines, comparing
                )
                emit(writer.folder, manifest.as_dict())
                artifact = writer.seal(manifest)
                if self.recorded is not None:
                    self.found.changes = self.recorded.demand_same(artifact.manifest)
                    artifact = writer.reseal(self.recorded.manifest)
                self.found.manifest = artifact.manifest.as_dict()
            self._verify(artifact, comparing)
            with self._stage("finish"):
                if comparing.unfit:
                    artifact = writer.reseal(comparing.corrected(artifact.manifest))
                self._report(artifact)
                return writer.publish()

    def _know(self, source: Source, exported: ExportedModel) -> None:
        """What a report says of the model, should the build end before there is a manifest."""
        self.found.model = describe.model_entry(source, exported)
        self.found.base = str(self.recipe.base)
        self.found.ranges = describe.ranges_of(self.recipe, exported)
        self.found.exported = exported
        self._left_out = left_out(source, exported.task)

    # -- stages -----------------------------------------------------------------------------

    @contextmanager
    def _stage(self, name: str, detail: str = "", target: str | None = None) -> Iterator[None]:
        """What fails inside, and says no place, is at the ``target`` or the model."""
        self.progress.stage(name, detail)
        start, seconds = time.perf_counter(), self.found.seconds
        try:
            with located(target or self.recipe.model), weights_named():
                yield
        finally:  # a report of a missed demand has the stage that missed it
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start

    def _engine(
        self,
        root: Path,
        target: str,
        model: ir.Model,
        source: Source,
        exported: ExportedModel,
        step: Step,
        comparing: Comparing,
    ) -> _Engine:
        place = place_of(target, self.recipe.target)
        (root / place).mkdir(parents=True, exist_ok=True)
        with self._stage("passes", comparing.of_passes(target), target):
            library = self._kernels.place(root / place) if target == "ort-cpu" else None
            passes = self.found.passes[target] = PipelineReport()  # filled, also where one fails
            self._passes(target, model, source, exported, step, comparing, library)
            self._demand(target, passes)
        with self._stage("build", target, target):
            job = EngineJob(
                model,
                root / place,
                self.recipe.for_target(target),
                describe.ranges_of(self.recipe, exported),
                tuple(exported.caches),
                step,
                stem=target if place == SHARED else None,
                store=self._store if place == SHARED else None,
                library=library,
            )
            with blaming(source):
                built = builder(target)(job)
            self.found.builders[target] = built.report
            return _Engine(target, place, passes, built)

    def _demand(self, target: str, passes: PipelineReport) -> None:
        """Hold the passes of one target to the counts expected of them; with the last target, what
        no target has a pass for is missed too."""
        expected = expected_counts(self.recipe)
        known = set(passes.names())
        if target == self.recipe.target[-1]:
            others = [set(each.names()) for each in self.found.passes.values()]
            known |= expected.keys() - set().union(*others)
        passes.demand({name: count for name, count in expected.items() if name in known})

    def _output(self) -> Path:
        if self.output is not None:
            return self.output
        return output_of(self.recipe)

    def _passes(
        self,
        target: str,
        model: ir.Model,
        source: Source,
        exported: ExportedModel,
        step: Step,
        comparing: Comparing,
        library: Path | None,
    ) -> None:
        config = config_of(source)
        recipe = self.recipe.for_target(target)
        precision = precision_of(recipe, target, config)
        recipe = with_stored_bits(recipe, exported, native=library is not None)
        energies = energies_for(recipe, model, source, exported, step)
        if recipe.quantize.algorithm == "auto":
            if self.recorded is None:
                assert energies is not None
                recipe, self.found.choices[target] = chosen_bits(
                    recipe, model, source, exported, energies, comparing.ceiling, step
                )
            else:
                recipe = self.recorded.bits(recipe, target)
        if self.recorded is None:
            self.found.tactics |= tactics_for(recipe, library, source, exported, self.progress.step)
        passes = passes_for(
            recipe,
            target,
            length=exported.length,
            config=config,
            hessians=hessians_for(recipe, model, source, exported, step),
            energies=energies,
            measure=measure_for(recipe, target, source, exported, step),
            native=library is not None,
            choose_kernels=self.recorded.kernels(target)
            if self.recorded is not None
            else self.found.tactics.get(target),
            cache_measure=cache_measure_for(recipe, target, source, exported, step),
        )
        report = self.found.passes[target]
        if comparing.unchecked:
            run(model, passes, progress=step, report=report)
            return
        checked_as = CHECKED_AS.get(precision, precision)
        with NumericCheck(comparing.feeds, checked_as, library) as check:
            compares = comparing.begin(check, model)
            run(model, passes, check=check if compares else None, progress=step, report=report)

    def _manifest(
        self,
        folder: Path,
        source: Source,
        exported: ExportedModel,
        pooling: Pooling | None,
        signature: dict[str, list[dict[str, Any]]],
        engines: Sequence[_Engine],
        comparing: Comparing,
    ) -> Manifest:
        from lepton_compile import __version__

        shared = exported.cached and all(
            in_place(e.passes, exported, e.target) for e in engines if e.target.startswith("ort-")
        )
        config = config_of(source)
        order = {e.target: [p.name for p in e.passes.passes] for e in engines}
        entries = [self._engine_entry(folder, e, source, comparing, exported) for e in engines]
        precisions = {each["target"]: each["precision"] for each in entries}
        return Manifest(
            task=exported.task,
            model=describe.model_entry(source, exported),
            inputs=tuple(signature["inputs"]),
            outputs=tuple(signature["outputs"]),
            ranges=describe.ranges_of(
                self.recipe, exported, config.get_text_config() if config else None
            ),
            engines=tuple(entries),
            cache=describe.cache_entry(exported, shared=shared),
            embedding=describe.picture_entry(pooling, signature["outputs"])
            if sees(exported)
            else describe.embedding_entry(pooling, source),
            demands=demands_entry(self.recipe, exported.task, precisions)
            if source.kind != "onnx"
            else None,
            lock=describe.lock_entry(
                self.recipe,
                source,
                order,
                {target: each["quantize"] for target, each in self.found.choices.items()},
                picture_shape(exported)[1:] if sees(exported) else None,
            ),
            tools=describe.tool_versions(),
            lepton=__version__,
            **describe.assets(source, folder, exported),
        )

    def _engine_entry(
        self,
        root: Path,
        engine: _Engine,
        source: Source,
        comparing: Comparing,
        exported: ExportedModel,
    ) -> dict[str, Any]:
        encoder, recipe = engine.built.encoder, self.recipe.for_target(engine.target)
        asked = precision_of(recipe, engine.target, config_of(source))
        folder = root / engine.folder
        files = [folder / name for name in engine.built.files] or folder.rglob("*")
        inside = (p for p in files if p.is_file())
        return {
            "target": engine.target,
            "model": f"{engine.folder}/{engine.built.model}",
            **({"encoder": f"{engine.folder}/{encoder}"} if encoder else {}),
            "files": sorted(p.relative_to(root).as_posix() for p in inside),
            "requires": dict(engine.built.requires),
            "precision": asked if recipe.quantize.bits else exported.stored or asked,
            **engine.built.details,
            **self.found.tactics_entry(engine.target),
            "executed": not comparing.unverified(engine.target),
            "compared": comparing.entry(engine.target),
        }

    def _verify(self, artifact: Artifact, comparing: Comparing) -> None:
        """Compare the engines that run here with PyTorch and hold them to their gates."""
        targets = comparing.verifiable()
        self.found.remarks = self._remarks(comparing)
        if not comparing.wanted:
            return
        with self._stage("verify", ", ".join(targets) or comparing.why_none()):
            if targets:
                self.found.verified = comparing.verify(artifact, targets, self.progress)
        self.found.remarks = self._remarks(comparing)
        checks = [check for each in self.found.verified for check in each.gates]
        enforce(checks, ways_out(self.recipe))

    def _remarks(self, comparing: Comparing) -> list[str]:
        if self.recorded is not None:
            return [AGAIN]
        kernels = self._kernels.remark
        timed = [said for each in self.found.tactics.values() for said in each.remarks()]
        return [*comparing.remarks(), *([kernels] if kernels else []), *timed, *self._left_out]

    def _report(self, artifact: Artifact) -> None:
        from lepton_compile.report import write_report

        write_report(artifact, **self.found.parts())
