"""What of a build is compared with what, and why something is not.

Nothing is left out in silence: what is not compared stands with its reason in the progress, the
report and the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from lepton_compile.api.demands import Demands, gates_of
from lepton_compile.api.memory import CHECKED, FP32, MemoryCeiling, Watched
from lepton_compile.api.sample import check_feeds, fewer_feeds
from lepton_compile.api.scores import behind_layers
from lepton_compile.api.texts import read_text
from lepton_compile.api.verification import Verified, runnable, verify_engines
from lepton_compile.artifact import Artifact, Manifest
from lepton_compile.errors import PassError
from lepton_compile.export import ExportedModel, Source
from lepton_compile.export.reference import (
    mapped_bytes,
    reference_parameters,
    streamed_parameters,
)
from lepton_compile.pipeline import NumericCheck
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe
from lepton_compile.scratch import scratch_lacks

__all__ = ["Comparing", "no_room_to_check", "room_beside", "room_to_verify"]

SCALES = 5
"""An engine has at most so many quarters of the bytes that the bits of its weights come to."""


def no_room_to_check(ceiling: MemoryCeiling, parameters: int) -> str:
    """Why the per-pass check of so many parameters has to be left out; empty where it has room."""
    lacks = ceiling.lacks(0, mapped=int(CHECKED * parameters))
    return lacks or scratch_lacks(FP32 * parameters, "the check's weights")


def room_beside(
    ceiling: MemoryCeiling, recipe: Recipe, source: Source, exported: ExportedModel
) -> tuple[int, str]:
    """What ``room_to_verify`` finds beside an engine that is not there yet."""
    engine = exported.parameters * (recipe.quantize.bits or FP32 * 8) // 8 * SCALES // 4
    return room_to_verify(ceiling, source, exported.task, exported.parameters, engine)


def room_to_verify(
    ceiling: MemoryCeiling, source: Source, task: str, parameters: int, engine: int
) -> tuple[int, str]:
    """How many weights of the fp32 model a verification holds at a time: all, or, where those have
    no room and the model runs a layer at a time, those of a layer and of what is around the layers.
    And why it cannot be carried out; empty where it has room.

    Args:
        parameters: that were compiled.
        engine: its bytes.
    """
    loaded = reference_parameters(source, task, parameters)
    lacks = ceiling.lacks(FP32 * loaded, mapped=mapped_bytes(source, loaded))
    held = streamed_parameters(source, task) if lacks else None
    if held is None:
        return loaded, lacks
    behind, what = FP32 * behind_layers(source, task), "the fp32 model, a layer at a time,"
    beside = ceiling.lacks(behind, "what is behind its layers, and the engine,", mapped=engine)
    return held, ceiling.lacks(FP32 * held, what) or beside


class Comparing:
    """Decides for one build; ``check`` and ``verify`` are what was asked for.

    Attributes:
        ceiling: on the memory of the build.
        feeds: sample inputs of the per-pass check; empty where it is left out.
        unchecked: why passes are not compared; empty where they are.
        wanted: verification was asked for.
        unfit: engines that did not open here when they were to be verified, and why.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: Source,
        exported: ExportedModel,
        ceiling: MemoryCeiling,
        check: bool,
        verify: bool,
    ) -> None:
        self._recipe, self._source, self.ceiling = recipe, source, ceiling
        self._exported = exported
        self.wanted = verify
        self.unfit: dict[str, str] = {}
        self.feeds: Mapping[str, np.ndarray] = {}
        self.unchecked = self._why_unchecked(exported, check)

    def _why_unchecked(self, exported: ExportedModel, check: bool) -> str:
        if not check:
            return "left out as asked"
        if lacks := no_room_to_check(self.ceiling, exported.parameters):
            return lacks
        try:
            self.feeds = check_feeds(self._source, exported)
        except PassError as error:
            return error.message
        return ""

    def begin(self, check: NumericCheck, model: ir.Model) -> bool:
        """Run the graph as it is; False where an imported one does not take synthetic inputs."""
        try:
            self._start(check, model)
        except PassError as error:
            if self._source.kind != "onnx":
                raise
            why = error.found or error.message
            self.unchecked = f"the ONNX file does not run on synthetic inputs: {why}"
            return False
        return True

    def _start(self, check: NumericCheck, model: ir.Model) -> None:
        """An imported graph that fails runs on fewer tokens: nothing says how many it takes."""
        try:
            check.start(model)
        except PassError:
            if self._source.kind != "onnx":
                raise
            for feeds in fewer_feeds(model, self._exported.length, self.feeds):
                with suppress(PassError):
                    check.start(model, feeds)
                    self.feeds = feeds
                    return
            raise

    def of_passes(self, target: str) -> str:
        """What to say of the stage: the target, and why its passes are not compared."""
        asked_for = self.unchecked in ("", "left out as asked")
        return target if asked_for else f"{target}, not compared: {self.unchecked}"

    def unverified(self, target: str) -> str:
        """Why the engine of a target is not compared with PyTorch; empty where it is."""
        if target in self.unfit:
            return self.unfit[target]
        return self._never or self._elsewhere[target]

    def verifiable(self) -> list[str]:
        """Targets whose engines are compared with PyTorch."""
        return [target for target in self._recipe.target if not self.unverified(target)]

    def why_none(self) -> str:
        """What to say of the stage where no engine is verified."""
        if self._never:
            return f"not done: {self._never}"
        reasons = "; ".join(f"{name}: {why}" for name, why in self._elsewhere.items())
        return f"not done, no engine runs here ({reasons})"

    def entry(self, target: str) -> dict[str, Any]:
        """``compared`` of the manifest: true, or the reason why not."""
        return {"passes": self.unchecked or True, "engine": self.unverified(target) or True}

    def remarks(self) -> list[str]:
        """What was left out, in sentences."""
        said = [f"passes were not compared: {self.unchecked}"] if self.unchecked else []
        reasons = {target: self.unverified(target) for target in self._recipe.target}
        return said + [
            f"the engine for {target} was not verified: {why}"
            for target, why in reasons.items()
            if why
        ]

    def corrected(self, manifest: Manifest) -> Manifest:
        """What the manifest says once it has turned out which engines do not open here: these
        were never executed."""
        engines = [
            {**e, "executed": False, "compared": self.entry(e["target"])}
            if e["target"] in self.unfit
            else e
            for e in manifest.engines
        ]
        return replace(manifest, engines=tuple(engines))

    def verify(self, artifact: Artifact, targets: list[str], progress: Progress) -> list[Verified]:
        """Compare the engines of ``targets``; those that turn out not to open go to ``unfit``."""
        manifest, recipe = artifact.manifest, self._recipe
        text = recipe.verify.text
        precisions = {e["target"]: str(e["precision"]) for e in manifest.engines}
        demanded = Demands(
            gates_of(recipe, manifest.task, precisions),
            read_text(recipe.base / text) if text is not None else None,
            recipe.verify.tokens,
        )
        return verify_engines(
            artifact.path,
            targets,
            self._source,
            demanded,
            progress=Watched(progress, self.ceiling),
            unfit=self.unfit,
            streamed=self._room[0] < self._exported.parameters,
        )

    @cached_property
    def _room(self) -> tuple[int, str]:
        return room_beside(self.ceiling, self._recipe, self._source, self._exported)

    @cached_property
    def _never(self) -> str:
        """Why no engine at all is compared."""
        if not self.wanted:
            return "left out as asked"
        if self._source.kind == "onnx":
            return "an ONNX file comes without the PyTorch model"
        return self._room[1]

    @cached_property
    def _elsewhere(self) -> dict[str, str]:
        return runnable(self._recipe.target)
