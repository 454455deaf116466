"""Manifests that somebody edited and sealed again: a LoaderError, or the edit does not matter.

The emitted file is what is run: parts that were left out are not there to save it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime import plans, tiny
from tests.runtime.double import HostDevice
from tests.runtime.on_double import ALIASED, BUCKETS, GROWING
from tests.runtime.test_emit import imported

GONE: Any = object()
VALUES: tuple[Any, ...] = (
    GONE,
    None,
    "{strange}",
    -1,
    2**62,
    10**30,
    1.5,
    True,
    [[]],
    ["x"],
    {"a": 1},
)
SKIPPED = {"digest", "lock", "tools", "lepton", "demands", "model"}  # no loader reads them


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all keys, and of the first of each list."""
    if path:
        yield path
    items: Any = node.items() if isinstance(node, dict) else ()
    items = enumerate(node[:1]) if isinstance(node, list) else items
    for key, value in items:
        if path or key not in SKIPPED:
            yield from places(value, (*path, key))


def edited(manifest: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with another value at the path, and a digest that is right again."""
    made = deepcopy(manifest)
    made.pop("digest")
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    canonical = json.dumps(made, sort_keys=True, separators=(",", ":"))
    return {**made, "digest": hashlib.sha256(canonical.encode()).hexdigest()}


def calls(model: Any) -> list[Callable[[], Any]]:
    """What the task does, in each of its ways."""
    if hasattr(type(model), "transcribe"):
        return [lambda: model.transcribe(np.zeros(90, np.float32), max_new_tokens=2).text]
    if model.manifest["task"] == "text2text-generation":
        return [
            lambda: model.generate("ab", max_new_tokens=2).text,
            lambda: model.generate([[5, 6], [7]], max_new_tokens=2, beams=2),
        ]
    if model.manifest["task"] == "image-text-to-text":
        seen = [np.full((60, 50, 3), 99, np.uint8)]
        return [
            lambda: model.run({"input_ids": [[5, 6]]}),
            lambda: model.generate("<image> w5", images=seen, max_new_tokens=2).text,
            lambda: model.generate("<|image_pad|> w5", images=seen, max_new_tokens=2).text,
            lambda: model.generate("w5", images=seen, chat=True, max_new_tokens=1),
        ]
    if hasattr(type(model), "vectors"):
        return [lambda: model.vectors(["a", "ab"], "query"), lambda: model.vectors(["a", "ab"])]
    if hasattr(type(model), "pixels"):
        return [lambda: model.embed([np.zeros((60, 50, 3), np.uint8)])]
    if not hasattr(type(model), "generate"):
        return [lambda: model.run({"input_ids": [[5, 6]]}), lambda: model.embed(["w5 w6", "w7"])]
    return [
        lambda: model.run({"input_ids": [[5, 6]]}),
        lambda: model.generate("w5", chat=True, max_new_tokens=2).text,
        lambda: model.generate([[5, 6], [7]], max_new_tokens=2),
    ]


def outcomes(folder: Path, loader: Any, under: tuple[Any, ...] = ()) -> tuple[int, int]:
    """How many edits below a path were refused by ``load``, and how many were not.

    Raises:
        AssertionError: one ended in anything else, there or when the model was called.
    """
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    refused = other = 0
    for path in (path for path in places(manifest) if path[: len(under)] == under):
        for value in VALUES:
            file.write_text(json.dumps(edited(manifest, path, value)), "utf-8")
            try:
                with loader.load(folder, threads=1) as model:
                    other += 1
                    for call in calls(model):
                        with suppress(loader.LoaderError):
                            call()
            except loader.LoaderError:
                refused += 1
            except Exception as error:  # what the test is about
                raise AssertionError(f"{path} = {value!r}: {error!r}") from error
    return refused, other


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_no_edit_ends_in_anything_but_a_refusal(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    source = request.getfixturevalue(f"{kind}_folder")
    folder = Path(shutil.copytree(source, tmp_path / "forged"))
    refused, other = outcomes(folder, imported(folder / "loader.py"))
    assert refused > 100
    assert other > 20


def _io(*outputs: str) -> dict[str, Any]:
    """What an engine says of its inputs and outputs."""
    ids = {"name": "input_ids", "dtype": "int64", "shape": ["batch", "sequence"]}
    sizes = {"last_hidden_state": ["batch", "sequence", 32], "sentence_embedding": ["batch", 32]}
    shapes = {"logits": ["batch", 1, 64], **sizes}
    found = [{"name": name, "dtype": "float32", "shape": shapes[name]} for name in outputs]
    return {"inputs": [ids], "outputs": found}


PLUGIN = {"name": "ours", "folder": "plugin", "architectures": ["8.0", "8.6"]}
CODE = {"plugin/plugin_runtime.py": b"def register(trt, folder):\n    return None\n"}
FOR_GPUS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "encoder": (plans.encoder_plan(), {"io": _io("last_hidden_state", "sentence_embedding")}),
    "decoder": (plans.decoder_plan(told=False), {**ALIASED, "io": _io("logits")}),
    "plugin": (plans.decoder_plan(), {"plugin": PLUGIN, "files": CODE}),
    "capacities": (plans.decoder_plan(buckets=BUCKETS), {**ALIASED, **GROWING}),
}


@pytest.fixture(params=FOR_GPUS)
def on_gpu(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Any]:
    """An artifact of an engine of TensorRT, and its loader, which finds the double of a GPU."""
    plan, details = FOR_GPUS[request.param]
    device, capabilities = HostDevice(), {"compute_capabilities": ["8.0+", "8.9"]}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", plans.module("tensorrt_rtx", device))
    make = tiny.encoder if request.param == "encoder" else tiny.decoder
    folder = make(tmp_path / "forged", plans={"trt-rtx": (plan, {**capabilities, **details})}).path
    loader = imported(folder / "loader.py")
    loader.Cuda = lambda: device
    with loader.load(folder) as model:
        assert model.target == "trt-rtx"
        for call in calls(model):
            call()
    return folder, loader


def test_no_edit_of_an_engine_for_gpus_ends_in_anything_else(on_gpu: tuple[Path, Any]) -> None:
    refused, other = outcomes(*on_gpu, ("engines", 0))
    assert refused > 50
    assert other > 20


def test_an_output_that_the_manifest_does_not_have_is_told(
    encoder_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "forged"))
    loader, file = imported(folder / "loader.py"), folder / "manifest.json"
    made = edited(json.loads(file.read_text("utf-8")), ("outputs", 1), GONE)
    file.write_text(json.dumps(made), "utf-8")
    said = r"there is no \['sentence_embedding'\], but \['last_hidden_state'\]"
    with loader.load(folder, threads=1) as model, pytest.raises(loader.LoaderError, match=said):
        model.embed(["w5"])


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("engines", 0, "target"), 5, r"manifest\.engines\[0\]\.target cannot be 5"),
        (("engines", 0, "requires"), GONE, r"manifest\.engines\[0\]\.requires cannot be None"),
        (("ranges", "batch"), [8, 1], r"manifest\.ranges\.batch cannot be \[8, 1\]"),
        (("ranges", "sequence"), [1], r"manifest\.ranges\.sequence cannot be \[1\]"),
        (("inputs", 0, "shape", 0), -1, r"manifest\.inputs\[0\]\.shape\[0\] cannot be -1"),
        (("cache", "layers", 0, "heads"), "2", r"cache\.layers\[0\]\.heads cannot be '2'"),
        (("cache", "layers", 0, "layer"), "1", r"cache\.layers\[0\]\.layer cannot be '1'"),
        (("generation", "vocabulary"), None, r"generation\.vocabulary cannot be None"),
        (("tokenizer", "file"), 7, r"manifest\.tokenizer\.file cannot be 7"),
        (("files", "loader.py", "size"), "1", r"files\.loader\.py\.size cannot be '1'"),
    ],
)
def test_the_refusal_says_which_key(
    decoder_folder: Path, tmp_path: Path, path: tuple[Any, ...], value: Any, said: str
) -> None:
    folder = Path(shutil.copytree(decoder_folder, tmp_path / "forged"))
    loader, file = imported(folder / "loader.py"), folder / "manifest.json"
    made = edited(json.loads(file.read_text("utf-8")), path, value)
    file.write_text(json.dumps(made), "utf-8")
    with pytest.raises(loader.LoaderError, match=rf"manifest\.json is damaged: .*{said}"):
        loader.load(folder, threads=1)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("aliases", {"present.0.key": 5}, r"\.aliases\.present\.0\.key cannot be 5"),
        ("io", {"inputs": [{"name": "x"}]}, r"\.io\.inputs\[0\]\.dtype cannot be None"),
        ("cache", {"buckets": [16, "40"]}, r"\.cache\.buckets\[1\] cannot be '40'"),
        ("compute_capabilities", [8.9], r"\.compute_capabilities\[0\] cannot be 8\.9"),
        ("plugin", {**PLUGIN, "folder": None}, r"\.plugin\.folder cannot be None"),
        ("plugin", {**PLUGIN, "architectures": [86]}, r"\.plugin\.architectures\[0\] cannot be 86"),
    ],
)
@pytest.mark.parametrize("target", ["ort-cuda", "trt", "trt-rtx"])
def test_of_an_engine_for_gpus_too(
    tmp_path: Path, target: str, key: str, value: Any, said: str
) -> None:
    made = tiny.decoder(tmp_path / "forged", plans={target: (plans.decoder_plan(), {})}).path
    loader, file = imported(made / "loader.py"), made / "manifest.json"
    changed = edited(json.loads(file.read_text("utf-8")), ("engines", 0, key), value)
    file.write_text(json.dumps(changed), "utf-8")
    damaged = rf"manifest\.json is damaged: manifest\.engines\[0\]{said}"
    with pytest.raises(loader.LoaderError, match=damaged):
        loader.load(made, target="ort-cpu", threads=1)


def test_where_it_is_the_only_one_as_well(tmp_path: Path) -> None:
    plan = {"trt-rtx": (plans.decoder_plan(), {})}
    made = tiny.decoder(tmp_path / "forged", plans=plan, cpu=False).path
    loader, file = imported(made / "loader.py"), made / "manifest.json"
    path = ("engines", 0, "compute_capabilities")
    file.write_text(json.dumps(edited(json.loads(file.read_text("utf-8")), path, [8.9])), "utf-8")
    with pytest.raises(loader.LoaderError, match=r"compute_capabilities\[0\] cannot be 8\.9"):
        loader.load(made)


def test_of_a_decoder_that_keeps_nothing_too(decoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(decoder_folder, tmp_path / "forged"))
    loader, file = imported(folder / "loader.py"), folder / "manifest.json"
    made = edited(json.loads(file.read_text("utf-8")), ("cache",), None)
    made = edited(made, ("generation", "vocabulary"), "64")
    file.write_text(json.dumps(made), "utf-8")
    with pytest.raises(loader.LoaderError, match=r"generation\.vocabulary cannot be '64'"):
        loader.load(folder, threads=1)


def test_what_may_be_missing_is_null(decoder_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(decoder_folder, tmp_path / "forged"))
    loader, file = imported(folder / "loader.py"), folder / "manifest.json"
    made = edited(json.loads(file.read_text("utf-8")), ("generation", "eos"), GONE)
    file.write_text(json.dumps(made), "utf-8")
    with loader.load(folder, threads=1) as model:
        assert model.manifest["generation"]["eos"] is None
        assert model.generate([5], max_new_tokens=2).tokens


def test_an_output_of_another_shape_is_told(encoder_folder: Path, tmp_path: Path) -> None:
    """Said to be as long as a text, vectors of texts of one length were cut to it in silence."""
    folder = Path(shutil.copytree(encoder_folder, tmp_path / "forged"))
    loader, file = imported(folder / "loader.py"), folder / "manifest.json"
    made = edited(json.loads(file.read_text("utf-8")), ("outputs", 1, "shape", 1), "sequence")
    file.write_text(json.dumps(made), "utf-8")
    said = r"sentence_embedding is \(1, 32\), which is not what manifest.json says"
    with loader.load(folder, threads=1) as model, pytest.raises(loader.LoaderError, match=said):
        model.embed(["w5 w6"])
