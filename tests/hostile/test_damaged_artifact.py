"""A damaged or hostile artifact is refused before a runtime is even imported."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.artifact import open_artifact
from lepton_compile.errors import ArtifactError
from lepton_compile.runtime import LoaderError, load
from tests.runtime import tiny

FILES = (
    "manifest.json",
    "loader.py",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "engines/ort-cpu/model.onnx",
)

PROGRAM = """
import sys
from lepton_compile.runtime import LoaderError, load
try:
    load(sys.argv[1])
except LoaderError as error:
    assert "onnxruntime" not in sys.modules, "a runtime was imported before the refusal"
    print(error)
    sys.exit(3)
"""


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.decoder(tmp_path_factory.mktemp("hostile") / "intact").path


@pytest.fixture
def artifact(intact: Path, tmp_path: Path) -> Path:
    """A copy to be harmed."""
    return Path(shutil.copytree(intact, tmp_path / "artifact"))


def refusal(artifact: Path) -> str:
    """What the loader says, in a process of its own, before it imports a runtime."""
    command = [sys.executable, "-c", PROGRAM, str(artifact)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr or "it was opened"
    return done.stdout.strip()


def forge(artifact: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as an attacker would: with a digest that is right again."""
    file = artifact / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    change(manifest)
    manifest.pop("digest", None)
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    file.write_text(json.dumps({**manifest, "digest": digest}), "utf-8")


def entry(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_every_file_is_named_here(intact: Path) -> None:
    found = {p.relative_to(intact).as_posix() for p in intact.rglob("*") if p.is_file()}
    assert found == set(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.6])
def test_a_flipped_bit(artifact: Path, name: str, where: float) -> None:
    data = bytearray((artifact / name).read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    (artifact / name).write_bytes(data)
    said = refusal(artifact)
    assert "damaged" in said
    assert name in said
    with pytest.raises(ArtifactError):
        open_artifact(artifact)


def test_a_manifest_that_another_hand_wrote(artifact: Path) -> None:
    """Each value is one that there may be: only the digest tells."""
    file = artifact / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    manifest["generation"]["eos"] = [7]
    file.write_text(json.dumps(manifest), "utf-8")
    assert refusal(artifact).endswith("does not match its own digest")
    with pytest.raises(ArtifactError, match="digest"):
        open_artifact(artifact)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    assert name in refusal(artifact)
    with pytest.raises(ArtifactError):
        open_artifact(artifact)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(artifact: Path, name: str) -> None:
    os.truncate(artifact / name, (artifact / name).stat().st_size // 2)
    said = refusal(artifact)
    assert "damaged" in said
    assert name in said
    with pytest.raises(ArtifactError):
        open_artifact(artifact)


@pytest.mark.parametrize("name", ["../outside.bin", "engines/../../outside.bin", "..\\outside.bin"])
def test_a_path_outside(artifact: Path, name: str) -> None:
    (artifact.parent / "outside.bin").write_bytes(b"secret")
    forge(artifact, lambda m: m["files"].update({name: entry(b"secret")}))
    assert "outside the artifact" in refusal(artifact)
    with pytest.raises(ArtifactError, match="outside"):
        open_artifact(artifact)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "a\ud800b", "engines", "."])
def test_names_that_no_file_has(artifact: Path, name: str) -> None:
    forge(artifact, lambda m: m["files"].update({name: entry(b"secret")}))
    with pytest.raises(LoaderError, match="is missing from"):
        load(artifact)
    with pytest.raises(ArtifactError, match=r"is missing|outside"):
        open_artifact(artifact)


def test_an_absolute_path(artifact: Path) -> None:
    outside = artifact.parent / "outside.bin"
    outside.write_bytes(b"secret")
    forge(artifact, lambda m: m["files"].update({str(outside): entry(b"secret")}))
    assert "outside the artifact" in refusal(artifact)
    with pytest.raises(ArtifactError, match="outside"):
        open_artifact(artifact)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_that_leads_outside(artifact: Path, kind: str) -> None:
    engine = artifact / "engines" / "ort-cpu"
    moved = artifact.parent / "moved"
    if kind == "folder":
        link = engine
        shutil.move(engine, moved)
    else:
        link = engine / "model.onnx"
        shutil.move(link, moved)
    link.symlink_to(moved)
    assert "links to outside the artifact: open a copy without links" in refusal(artifact)
    with pytest.raises(ArtifactError, match="outside") as caught:
        open_artifact(artifact)
    assert "without links" in str(caught.value.hint)


def test_a_file_that_no_digest_vouches_for(artifact: Path) -> None:
    (artifact / "other.onnx").write_bytes(b"anything")
    forge(artifact, lambda m: m["engines"][0].update(model="other.onnx"))
    said = refusal(artifact)
    assert "other.onnx" in said
    assert "digest" in said


def test_kernels_that_no_digest_vouches_for(artifact: Path) -> None:
    """A library of the same name is listed elsewhere; it is taken from beside the model."""
    (artifact / "else").mkdir()
    for name in ("else/ours.so", "engines/ort-cpu/ours.so"):
        (artifact / name).write_bytes(b"no library")

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["else/ours.so"] = entry(b"no library")
        (engine,) = manifest["engines"]
        engine["files"].append("else/ours.so")
        place = {"system": platform.system(), "machine": platform.machine()}
        engine["kernels"] = {"library": "else/ours.so", **place}

    forge(artifact, change)
    with pytest.raises(LoaderError, match=r"the engine's files do not list ours\.so"):
        load(artifact)
    with pytest.raises(ArtifactError, match="uses files without giving their digests"):
        open_artifact(artifact)


def test_a_manifest_that_is_too_deep(artifact: Path) -> None:
    def nested(depth: int) -> Any:
        return [nested(depth - 1)] if depth else []

    forge(artifact, lambda manifest: manifest.update(labels={"0": nested(600)}))
    with pytest.raises(ArtifactError, match=r"the manifest is (damaged|not JSON)"):
        open_artifact(artifact)


@pytest.mark.parametrize("number", [0, 9])
def test_another_format(artifact: Path, number: int) -> None:
    forge(artifact, lambda m: m.update(format=number, min_format=number))
    assert refusal(artifact).endswith(f"format {number}; this loader reads 1 to 1")
    with pytest.raises(ArtifactError, match="format"):
        open_artifact(artifact)


def test_a_newer_format_that_older_readers_may_read(artifact: Path) -> None:
    forge(artifact, lambda m: m.update(format=9, min_format=1, invention=True))
    assert open_artifact(artifact).manifest.format == 9
    from lepton_compile.runtime import load

    with load(artifact, threads=1) as model:
        assert model.generate([5], max_new_tokens=1).finish


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("files"),
        lambda m: m.pop("engines"),
        lambda m: m.pop("format"),
        lambda m: m.update(format="one"),
        lambda m: m.update(files=["loader.py"]),
        lambda m: m.update(files={"loader.py": 7}),
        lambda m: m.update(engines=[7]),
        lambda m: m.update(tokenizer=7),
    ],
)
def test_a_manifest_of_another_shape(artifact: Path, change: Callable[[Any], object]) -> None:
    forge(artifact, change)
    assert "manifest.json is damaged" in refusal(artifact)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '"\ud800"'])
def test_a_manifest_that_is_none(artifact: Path, text: str) -> None:
    (artifact / "manifest.json").write_text(text, "utf-8", "surrogatepass")
    assert "manifest.json is damaged" in refusal(artifact)
    with pytest.raises(ArtifactError):
        open_artifact(artifact)


def test_a_folder_that_is_no_artifact(tmp_path: Path) -> None:
    assert "no manifest.json" in refusal(tmp_path)
    assert "no manifest.json" in refusal(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="no artifact"):
        open_artifact(tmp_path)


def test_an_engine_that_is_whole_but_no_model(artifact: Path) -> None:
    from lepton_compile.runtime import LoaderError, load

    (artifact / "engines/ort-cpu/model.onnx").write_bytes(b"anything")
    files = {"engines/ort-cpu/model.onnx": entry(b"anything")}
    forge(artifact, lambda m: m["files"].update(files))
    with pytest.raises(LoaderError, match=r"onnxruntime cannot open model\.onnx"):
        load(artifact, threads=1)
