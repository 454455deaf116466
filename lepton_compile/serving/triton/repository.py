"""Write a model into a Triton model repository."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from lepton_compile.arguments import number_of, path_of
from lepton_compile.artifact import read_manifest
from lepton_compile.artifact.manifest import MANIFEST_FILE
from lepton_compile.errors import ArtifactError, UsageError
from lepton_compile.serving.engine import ServedEngine, open_engine
from lepton_compile.serving.output import OutputFolder
from lepton_compile.serving.triton.decoder import KINDS, decoder_config, decoder_samples
from lepton_compile.serving.triton.encoder import (
    BACKENDS,
    LABELS_FILE,
    encoder_config,
    model_name,
)
from lepton_compile.serving.triton.protobuf import text_of
from lepton_compile.serving.triton.warmup import FOLDER, Sample, encoder_samples

__all__ = ["CONFIG_FILE", "export_triton"]

CONFIG_FILE = "config.pbtxt"


def export_triton(
    artifact: str | Path,
    repository: str | Path,
    *,
    name: str | None = None,
    version: int = 1,
    target: str | None = None,
    instances: int = 1,
    copy: bool = False,
) -> Path:
    """Write ``<repository>/<name>`` with ``config.pbtxt``, a version folder and warm-up requests.

    Args:
        artifact: folder.
        repository: Triton's model repository; may exist, with other models in it.
        name: of the model; default: that of the artifact's folder.
        version: number of the version folder.
        target: engine to serve; default: the first of the artifact's that Triton can load.
        instances: how many requests are computed at once, on each device.
        copy: copy the files instead of linking them.

    Returns:
        The model's folder.

    Raises:
        ArtifactError: the artifact is not intact, has no engine for Triton, or the model exists.
        LeptonError: tritonclient is not installed.
        UsageError: a name, a version or a number of instances that Triton cannot have.
    """
    folder = path_of(artifact, "the artifact's folder")
    copies, numbered = number_of(instances, "instances"), number_of(version, "version")
    decoder = "-generation" in read_manifest(folder).task
    engine = open_engine(folder, tuple(KINDS if decoder else BACKENDS), "Triton", target)
    if decoder and not engine.generates:  # whoever asks feeds the past by hand
        decoder, engine = False, open_engine(folder, tuple(BACKENDS), "Triton", target)
    named = _checked_name(Path(os.path.abspath(folder)).name if name is None else name)
    samples = decoder_samples(engine) if decoder else list(encoder_samples(engine))
    if decoder:
        config = decoder_config(engine, named, copies)
    else:
        _refuse_plugins(engine)
        _refuse_parts(engine)
        config = encoder_config(engine, named, copies, samples)
    with OutputFolder(path_of(repository, "repository") / named, copy=copy) as out:
        out.write(CONFIG_FILE, text_of(config))
        _place_decoder(out, engine, numbered) if decoder else _place_encoder(out, engine, numbered)
        _write_samples(out, samples)
        _write_labels(out, engine, config)
    return out.output


def _place_encoder(out: OutputFolder, engine: ServedEngine, version: int) -> None:
    for name, path in engine.files().items():
        served = model_name(engine) if path == engine.model_file else name
        out.place(path, f"{version}/{served}")


def _place_decoder(out: OutputFolder, engine: ServedEngine, version: int) -> None:
    """The whole artifact: its loader checks every digest again when Triton starts."""
    out.place(Path(__file__).with_name("python_model.py"), f"{version}/model.py")
    root = engine.artifact.path
    for name in (MANIFEST_FILE, *engine.manifest.files):
        out.place(root / name, f"{version}/artifact/{name}")


def _write_samples(out: OutputFolder, samples: list[Sample]) -> None:
    for sample in samples:
        for value, content in sample.files.items():
            out.write(f"{FOLDER}/{sample.file_name(value)}", content)


def _write_labels(out: OutputFolder, engine: ServedEngine, config: Any) -> None:
    if any(output.label_filename for output in config.output):
        labels = engine.manifest.labels or {}
        ordered = [labels.get(str(number), str(number)) for number in range(len(labels))]
        out.write(LABELS_FILE, "".join(f"{' '.join(label.split())}\n" for label in ordered))


def _checked_name(name: str) -> str:
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return name
    raise UsageError(
        "Triton cannot have a model of this name",
        where="--name, or the artifact's folder where it is left out",
        found=str(name) or "''",
        hint="--name NAME, of the letters a to z, digits, '.', '_' and '-'",
    )


def _refuse_parts(engine: ServedEngine) -> None:
    if engine.entry.get("encoder"):
        raise ArtifactError(
            "speech and vision-language models are not exported to Triton",
            found=f"{engine.manifest.task}, of an encoder and a decoder",
            hint="serve it by its own loader.py, which takes samples, or images",
        )


def _refuse_plugins(engine: ServedEngine) -> None:
    plugin = engine.entry.get("plugin")
    if engine.target == "trt" and plugin and not plugin.get("self_contained"):
        raise ArtifactError(
            "Triton's TensorRT backend cannot open a plan whose plugin is written in Python",
            found=str(plugin.get("name")),
            hint="build it with attention: mask, or serve another target with --target",
        )
