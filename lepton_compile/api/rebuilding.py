"""Build an artifact again from what its manifest pins, and hold it to the same bytes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lepton_compile.api.building import Build
from lepton_compile.api.changes import Changes
from lepton_compile.api.recorded import OtherPlanError, Recorded
from lepton_compile.artifact import Artifact, Manifest
from lepton_compile.export import Source
from lepton_compile.progress import Progress
from lepton_compile.recipe import Recipe
from lepton_compile.scratch import on_scratch_disk
from lepton_plugins.workroom import Workroom

__all__ = ["Rebuilt", "run_again"]


TRIES = 4
"""How often an artifact is built of which nothing but a plan of TensorRT differs: its builder makes
one of a few of the same network."""


@dataclass(frozen=True)
class Rebuilt:
    """A build that was repeated, and gave the same bytes.

    Attributes:
        manifest: of both.
        changes: what is other than it was then, and made no difference: by its name as it was and
            as it is.
        artifact: the second one, where it was to be kept.
    """

    manifest: Manifest
    changes: Changes
    artifact: Artifact | None = None

    @property
    def size(self) -> int:
        """Bytes of all files that were compared."""
        return sum(entry.size for entry in self.manifest.files.values())


def run_again(
    recipe: Recipe,
    source: Source | None,
    recorded: Recorded,
    *,
    output: Path | None,
    overwrite: bool,
    progress: Progress,
) -> Rebuilt:
    """Carry it out; see ``api.rebuild``."""

    def built(place: Path) -> tuple[Artifact, Changes]:
        build = Build(
            recipe,
            source,
            output=place,
            check=False,
            verify=False,
            overwrite=overwrite,
            progress=progress,
            recorded=recorded,
        )
        return build.run(), build.found.changes

    def tried(place: Path) -> tuple[Artifact, Changes]:
        for _ in range(TRIES - 1):
            with suppress(OtherPlanError):
                return built(place)
        return built(place)

    if output is not None:
        artifact, found = tried(output)
        return Rebuilt(artifact.manifest, found, artifact)
    with on_scratch_disk():
        room = Workroom("rebuild")
    with room:
        artifact, found = tried(Path(room.name) / "artifact")
    return Rebuilt(artifact.manifest, found)
