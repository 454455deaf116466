"""What a manifest says of an earlier build, read again: its recipe, its decisions, its bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lepton_compile as lc
from lepton_compile.api.changes import changes, hint_of
from lepton_compile.api.recorded import Recorded
from lepton_compile.artifact import FileEntry, Manifest, manifest_in
from lepton_compile.errors import GateError, LeptonError
from lepton_passes.lowering.ort.choices import Layer
from tests.plugins.cpu_library import needs_library
from tests.runtime.test_loader_forged import VALUES, edited, places
from tests.small import bert, byte_tokenizer, saved

MANIFEST = "manifest.json"
NBITS = {"kernel": "nbits"}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    recipe = {"task": "feature-extraction", "quantize": "int8", "tactics": "default"}
    model = saved("BertModel", bert(vocab_size=260), folder / "model")
    byte_tokenizer(model)
    recipe |= {"model": str(model)}
    return lc.build(recipe, output=folder / "out", check=False, verify=False).path


@pytest.fixture
def whole(artifact: Path) -> dict[str, Any]:
    """The document."""
    return dict(json.loads((artifact / MANIFEST).read_text()))


def _of(document: Any) -> Manifest:
    return Manifest.from_json(json.dumps(document))


READ = [
    ("image", {}),
    ("score", "sigmoid"),
    ("format", 2),
    ("engines", 0, "saturates", None),
    ("engines", 0, "kernels", "slice", 1),
    ("engines", 0, "kernels", "system", "Plan 9"),
]
UNREAD = [
    ("engines", 0, "compared", {}),
    ("engines", 0, "executed", None),
    ("engines", 0, "tactics", {"layers": []}),
    ("engines", 0, "kernels", "compiler", "another"),
    ("demands", None),
    ("lepton", "0.0.1"),
    ("model", {}),
]


@needs_library
@pytest.mark.parametrize("edit", READ)
def test_what_loaders_read_is_held_to_what_it_was(whole: dict[str, Any], edit: Any) -> None:
    *path, value = edit
    other = edited(whole, (*path,), value)
    for then, now in ((whole, other), (other, whole)):
        with pytest.raises(GateError) as caught:
            Recorded(_of(then), Path()).demand_same(_of(now))
        assert f"another manifest.{path[0]}; {len(whole['files'])} of" in (caught.value.found or "")


@needs_library
@pytest.mark.parametrize("edit", UNREAD)
def test_what_nothing_is_loaded_by_may_be_other(whole: dict[str, Any], edit: Any) -> None:
    *path, value = edit
    other = edited(whole, (*path,), value)
    Recorded(_of(other), Path()).demand_same(_of(whole))
    Recorded(_of(whole), Path()).demand_same(_of(other))


def test_what_was_demanded_is_not_read_again(whole: dict[str, Any], tmp_path: Path) -> None:
    """A text least of all: whoever edited the manifest could name any file."""
    own = {"ort-cpu": {"gates": {"cosine": 0.5}, "quantize": {"bits": 4}}}
    recipe = whole["lock"]["recipe"] | {"verify": {"text": "/dev/zero"}, "per_target": own}
    recipe |= {"passes": {"disable": ["fuse-gelu"], "expect": {"attention": 9}}}
    recorded = Recorded(_of(edited(whole, ("lock", "recipe"), recipe)), tmp_path)
    found = recorded.recipe(None, trusted=False)
    assert (found.verify.enabled, found.verify.text) == (False, None)
    assert found.per_target["ort-cpu"].gates is None
    assert found.for_target("ort-cpu").quantize.bits == 4
    assert (found.passes.disable, found.passes.expect) == (("fuse-gelu",), {})
    assert found.trust_remote_code is False


def test_an_adapter_is_looked_for_where_the_recipe_was(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / MANIFEST).write_text(
        json.dumps(edited(whole, ("model", "adapter"), "lora")), "utf-8"
    )
    recorded = Recorded(manifest_in(tmp_path / MANIFEST), tmp_path / MANIFEST)
    assert recorded.recipe(None, trusted=False).adapter == str(tmp_path / "lora")
    assert recorded.recipe("hf:org/name", trusted=False).model == "hf:org/name"


def test_kernels_are_those_of_the_target_and_of_layers_that_are_known(
    whole: dict[str, Any],
) -> None:
    layer = {"columns": 64, "rows": 32, "bits": 8}
    (engine,) = whole["engines"]
    others = [engine | {"target": "ort-cuda"}, engine | {"tactics": {"layers": [layer | NBITS]}}]
    recorded = Recorded(_of(edited(whole, ("engines",), others)), Path())
    choose = recorded.kernels("ort-cpu")
    assert choose is not None
    known, strange = Layer(**layer), Layer(columns=1, rows=1, bits=4)
    assert {each: choice.kernel for each, choice in choose([known, strange]).items()} == {
        known: "nbits"
    }
    assert recorded.kernels("ort-cuda") is None
    assert recorded.kernels("trt") is None


def test_what_is_other_is_told_without_what_is_not(artifact: Path) -> None:
    manifest = manifest_in(artifact / MANIFEST)
    passes = manifest.lock["passes"]["ort-cpu"]

    def told(**lock: Any) -> dict[str, tuple[str, str]]:
        return dict(changes(replace(manifest, lock={**manifest.lock, **lock}), manifest))

    assert told() == {}
    found = told(passes={"ort-cpu": ["an-old-one", *passes[1:]]})
    assert found == {"passes of ort-cpu": ("an-old-one", passes[0])}
    found = told(passes={"ort-cpu": [passes[1], passes[0], *passes[2:]]})
    assert found == {"passes of ort-cpu": (f"{passes[1]} {passes[0]}", f"{passes[0]} {passes[1]}")}
    found = told(passes={"ort-cpu": passes, "trt": ["a", "b"]})
    assert found == {"passes of trt": ("a b", "none")}
    machine = {"processor": "a", "features": ["x", "y"]}
    assert told(machine=machine) == {}  # of one alone nothing is known
    this = {"processor": "a", "features": ["y", "z"]}
    of_this = replace(manifest, lock={**manifest.lock, "machine": this})
    of_then = replace(manifest, lock={**manifest.lock, "machine": machine})
    assert changes(of_then, of_this) == {"features": ("x", "z")}
    (engine,) = manifest.engines
    of_then = replace(manifest, engines=(engine | {"kernels": {"compiler": "c++ 1"}},))
    of_this = replace(manifest, engines=(engine | {"kernels": {"compiler": "c++ 2"}},))
    assert changes(of_then, of_this) == {"compiler of ort-cpu": ("c++ 1", "c++ 2")}
    assert told(revision="abc") == {"revision of the model": ("abc", "none")}
    assert told(calibration="0123456789abcdef") == {
        "sample that is fitted to": ("0123456789ab", "none")
    }


def test_a_command_that_is_copied_has_nothing_that_somebody_wrote() -> None:
    """Whoever edits a manifest and seals it again could have pip install whatever they like."""
    found = {
        "numpy": ("2.0.0", "2.1.0"),
        "torch": ("2.0; rm -rf ~", "2.1.0"),
        "gguf": ("none", "1.0"),
        "evil": ("1.0", "none"),
        "--index-url=http://evil": ("1.0", "none"),
        "lepton-compile": ("0.0.1", "0.1.0"),
    }
    hint = hint_of(found)
    assert hint.endswith(": pip install numpy==2.0.0")
    assert "evil was 1.0 and is none" in hint
    assert hint_of({"evil": ("1", "none")}) == "evil was 1 and is none"


@pytest.mark.parametrize(
    ("path", "value", "where", "found"),
    [
        (("lock", "recipe"), None, "manifest.lock.recipe", None),
        (("lock", "recipe", "quantize"), 7, "manifest.lock.recipe", "quantize"),
        (("lock", "recipe", "passes"), {"disable": ["x"]}, "manifest.lock.recipe.passes", "x"),
        (("lock", "chosen"), {"ort-cpu": {"bits": 5}}, "manifest.lock.chosen.ort-cpu", "bits: "),
        (("model", "source"), None, "manifest.model.source", None),
        (("engines", 0, "kernels"), {"compiler": []}, None, None),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told_at_its_place(
    artifact: Path, tmp_path: Path, path: Any, value: Any, where: str | None, found: str | None
) -> None:
    whole = json.loads((artifact / MANIFEST).read_text())
    whole["lock"]["recipe"]["quantize"] |= {"algorithm": "auto", "bits": None}
    (tmp_path / MANIFEST).write_text(json.dumps(edited(whole, path, value)))
    with pytest.raises(LeptonError) as caught:
        lc.rebuild(tmp_path / MANIFEST)
    if where:
        assert caught.value.where == where
    assert (found or "") in (caught.value.found or "")
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("part", ["recipe", "chosen", "passes", "inputs", "machine"])
def test_a_lock_that_somebody_edited_is_no_bug(artifact: Path, tmp_path: Path, part: str) -> None:
    """What it says is taken, or refused with an error of ours."""
    whole = json.loads((artifact / MANIFEST).read_text())
    whole["lock"] |= {"chosen": {"ort-cpu": {"bits": 4}}, "machine": {"features": ["fma"]}}
    whole["engines"][0]["tactics"] = {"layers": [{"columns": 64, "kernel": "native"}]}
    paths, outcomes = [("lock", *path) for path in places({part: whole["lock"][part]})], set()
    for path in [*paths, ("engines", 0, "tactics", "layers", 0, "columns")]:
        for value in VALUES:
            file = tmp_path / MANIFEST
            file.write_text(json.dumps(edited(whole, path, value)))
            try:
                recorded = Recorded(manifest_in(file), file)
                recipe = recorded.recipe(None, trusted=False)
                recorded.kernels("ort-cpu")
                recorded.bits(recipe, "ort-cpu")
                changes(recorded.manifest, recorded.manifest)
                outcomes.add("taken")
            except LeptonError:
                outcomes.add("refused")
    assert "refused" in outcomes


def test_plans_of_one_network_are_told_from_other_networks() -> None:
    def told(now: Manifest) -> str:
        with pytest.raises(GateError) as caught:
            Recorded(_of_plan("a", "n"), Path()).demand_same(now)
        return caught.value.hint or ""

    assert "TensorRT was given the same network" in told(_of_plan("b", "n"))
    assert "report it" in told(_of_plan("b", "another"))


def _of_plan(plan: str, network: str) -> Manifest:
    name = "engines/trt-rtx/model.plan"
    engine = {"target": "trt-rtx", "model": name, "network": network}
    files: Any = {name: FileEntry(1, plan)}
    parts: dict[str, Any] = {"inputs": (), "outputs": (), "ranges": {}, "model": {}}
    return Manifest(task="x", engines=(engine,), files=files, **parts)
