"""The manifest: JSON both ways, and everything that is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lepton_compile.artifact import FORMAT, FileEntry, Manifest
from lepton_compile.artifact.manifest import _digest
from lepton_compile.errors import ArtifactError

ENGINE = {"target": "ort-cpu", "model": "m.onnx", "files": ["m.onnx"], "requires": {}}
ENGINE |= {"precision": "fp32"}
MANIFEST = Manifest(
    task="feature-extraction",
    model={"source": "./tiny", "architecture": "Tiny ü"},
    inputs=({"name": "input_ids", "dtype": "int64", "shape": ["batch", 4], "optional": False},),
    outputs=({"name": "x", "dtype": "float32", "shape": ["batch", 8]},),
    ranges={"batch": [1, 64], "sequence": [1, 8]},
    engines=(ENGINE,),
    files={"m.onnx": FileEntry(3, "ab" * 32)},
    lepton="0.1.0",
)


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """The document with a change and a digest that is right again."""
    document = json.loads(MANIFEST.to_json())
    change(document)
    document.pop("digest")
    return json.dumps({**document, "digest": _digest(document)})


def test_it_reads_back_as_it_was_written() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_the_digest_is_of_the_canonical_json() -> None:
    document = json.loads(MANIFEST.to_json())
    assert document["digest"] == MANIFEST.digest()
    shuffled = dict(reversed(document.items()))
    assert Manifest.from_json(json.dumps(shuffled, indent=7)) == MANIFEST
    canonical = b'{"a":["\\u00fc"],"b":1}'  # as other readers of FORMAT.md make it
    assert _digest({"b": 1, "a": ["ü"]}) == hashlib.sha256(canonical).hexdigest()


def test_only_a_model_that_sees_says_something_of_pictures() -> None:
    """An older version reads no field that it does not know."""
    assert "image" not in json.loads(MANIFEST.to_json())
    seeing = replace(MANIFEST, image={"size": [8, 8]})
    assert Manifest.from_json(seeing.to_json()) == seeing


def test_any_change_breaks_the_digest() -> None:
    text = MANIFEST.to_json().replace("0.1.0", "0.1.1")
    with pytest.raises(ArtifactError, match="its own digest"):
        Manifest.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\udcff"])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(ArtifactError, match="not JSON"):
        Manifest.from_json(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("text", ["[1]", "3", "null"])
def test_what_is_json_of_something_else(text: str) -> None:
    with pytest.raises(ArtifactError, match="not an object"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(format=FORMAT + 1, min_format=FORMAT + 1), "does not read"),
        (lambda d: d.update(format=0), "does not read"),
        (lambda d: d.update(format=True), "names no format"),
        (lambda d: d.pop("min_format"), "names no format"),
        (lambda d: d.pop("task"), "no task"),
        (lambda d: d.pop("files"), "no files"),
        (lambda d: d.update(extra=1), "unknown extra"),
        (lambda d: d.update(files=[]), "malformed"),
        (lambda d: d["files"].update({"m.onnx": {"size": 3}}), "malformed"),
        (lambda d: d.update(engines=3), "malformed"),
        (lambda d: d["engines"][0].pop("model"), "no model"),
        (lambda d: d["inputs"][0].pop("dtype"), "no dtype"),
    ],
)
def test_what_is_no_manifest(change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        Manifest.from_json(changed(change))


def test_a_newer_format_may_say_more() -> None:
    text = changed(lambda d: d.update(format=FORMAT + 1, invention=1))
    assert Manifest.from_json(text).format == FORMAT + 1
