"""One engine of an artifact, as an export sees it: its interface, its files, its limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lepton_compile.artifact import Artifact, Manifest, open_artifact
from lepton_compile.errors import ArtifactError, UsageError

__all__ = ["BATCH", "ServedEngine", "open_engine"]

BATCH = "batch"

# What a loader makes of a prompt.
_TEXT = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


@dataclass(frozen=True)
class ServedEngine:
    """An engine whose artifact is intact.

    Attributes:
        artifact: with every digest checked.
        entry: the engine's entry in the manifest.
    """

    artifact: Artifact
    entry: Mapping[str, Any]

    @property
    def manifest(self) -> Manifest:
        """Of the whole artifact."""
        return self.artifact.manifest

    @property
    def target(self) -> str:
        """Such as ``ort-cpu``."""
        return str(self.entry["target"])

    @property
    def is_decoder(self) -> bool:
        """Whether it generates, token by token, with a KV cache."""
        return self.manifest.task in ("text-generation", "text2text-generation")

    @property
    def generates(self) -> bool:
        """Whether the artifact's loader continues prompts: it can feed an imported graph no past,
        nor anything else that the graph may want beside a text."""
        # Engines that list inputs of their own say nothing of optional ones: they have none.
        asked = [v["name"] for v in self.inputs if not v.get("optional")]
        others = [name for name in asked if name not in _TEXT]
        return self.is_decoder and (self.manifest.cache is not None or not others)

    @property
    def batched(self) -> bool:
        """Whether everything that goes in or out has the rows of a batch first."""
        return all(value["shape"][:1] == [BATCH] for value in (*self.inputs, *self.outputs))

    @property
    def inputs(self) -> Sequence[Mapping[str, Any]]:
        """``name``, ``dtype``, ``shape``: the engine's own where they differ from the model's."""
        own = (self.entry.get("io") or {}).get("inputs") or ()
        if own and not self.target.startswith("ort-"):
            return tuple(own)
        # Engines of onnxruntime list what differs, such as the type of the cache.
        both = (*self.manifest.inputs, *own)
        return tuple({value["name"]: value for value in both}.values())

    @property
    def outputs(self) -> Sequence[Mapping[str, Any]]:
        """As ``inputs``."""
        return tuple((self.entry.get("io") or {}).get("outputs") or self.manifest.outputs)

    @property
    def model_file(self) -> Path:
        """What the runtime opens."""
        return self.artifact.path / str(self.entry["model"])

    def files(self) -> Mapping[str, Path]:
        """Every file of the engine by its name relative to the model file's folder.

        Raises:
            ArtifactError: one lies elsewhere.
        """
        folder = PurePosixPath(self.entry["model"]).parent
        names = [PurePosixPath(name) for name in self.entry["files"]]
        if outside := [str(name) for name in names if not name.is_relative_to(folder)]:
            raise ArtifactError(
                "files of an engine lie beside the folder of its model",
                where=f"engines, {self.target}",
                found=", ".join(outside),
                available=[f"{folder}/…"],
            )
        return {name.relative_to(folder).as_posix(): self.artifact.path / name for name in names}

    def limits(self, dimension: str) -> tuple[int, int]:
        """Smallest and largest size of a named dimension."""
        low, high = self.manifest.ranges[dimension]
        return int(low), int(high)


def open_engine(
    folder: str | Path, able: Sequence[str], server: str, target: str | None = None
) -> ServedEngine:
    """The engine that a server can load, every digest of its artifact checked.

    Args:
        folder: an artifact.
        able: the targets that the server loads.
        server: how to call it in messages.
        target: one of ``able``; default: the first of the artifact's that is among them.

    Raises:
        ArtifactError: the artifact is not intact, or has no engine that the server loads.
        UsageError: the server does not load ``target``.
    """
    artifact = open_artifact(folder)
    entries = {entry["target"]: entry for entry in artifact.manifest.engines}
    if target is not None and target not in able:
        raise UsageError(
            f"{server} does not load engines for {target}",
            where="--target",
            found=target + _why_not([target], able),
            available=able,
        )
    chosen = next((name for name in entries if name in able and target in (None, name)), None)
    if chosen is not None:
        return ServedEngine(artifact, entries[chosen])
    raise ArtifactError(
        f"no engine in this artifact is for {target or server}",
        where=str(folder),
        found=", ".join(entries) + _why_not(entries, able),
        available=able,
        hint=f"build one: lepton-compile build ... --target {target or able[0]}",
    )


def _why_not(targets: Iterable[str], able: Sequence[str]) -> str:
    if "trt-rtx" not in targets or "trt-rtx" in able:
        return ""
    return " (a TensorRT-RTX plan opens in the TensorRT-RTX runtime alone)"
