"""Builds that are repeated from their manifests: the same bytes, or which are others and why."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

import lepton_compile as lc
from lepton_compile.api.changes import hint_of
from lepton_compile.api.own_code import own_code
from lepton_compile.api.rebuilding import TRIES
from lepton_compile.api.recorded import OtherPlanError, Recorded
from lepton_compile.artifact import Manifest, open_artifact
from lepton_compile.errors import ArtifactError, EngineError, GateError, SourceError
from tests.hostile.test_bad_checkpoints import remote_code_folder
from tests.plugins.cpu_library import needs_library
from tests.small import bert, byte_tokenizer, llama, saved

RECIPE = {"task": "feature-extraction", "quantize": "int8", "tactics": "default"}
MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = saved("BertModel", bert(vocab_size=260), tmp_path_factory.mktemp("bert"))
    byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def artifact(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checked and verified, as its manifest says."""
    return _built(model, tmp_path_factory.mktemp("built") / "out", verify=True, check=True)


def _built(model: Path, output: Path, **options: Any) -> Path:
    recipe = {**RECIPE, "verify": False, "check": False, **options}
    return lc.build(model=str(model), output=output, **recipe).path


def _files(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("report."))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _forged(artifact: Path, folder: Path, **changed: Any) -> Path:
    """A copy whose manifest says something else, sealed again."""
    copy = Path(shutil.copytree(artifact, folder))
    manifest = replace(open_artifact(copy).manifest, **changed)
    (copy / MANIFEST).write_text(manifest.to_json())
    return copy


def test_the_same_bytes_and_nothing_left(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    found = lc.rebuild(artifact)
    assert found.manifest == open_artifact(artifact).manifest
    assert (found.artifact, found.changes) == (None, {})
    files = _files(artifact)
    assert found.size == sum(map(len, files.values())) - len(files[MANIFEST])
    assert not [*(tmp_path / "scratch").iterdir()]


def test_a_manifest_alone_becomes_the_artifact_again(
    artifact: Path, model: Path, tmp_path: Path
) -> None:
    """It is kept beside a recipe, and the model lies somewhere else by now."""
    kept = Path(shutil.copy(artifact / MANIFEST, tmp_path / "bert.lock.json"))
    moved = shutil.copytree(model, tmp_path / "moved")
    found = lc.rebuild(kept, model=moved, output=tmp_path / "out")
    assert found.artifact is not None
    assert _files(tmp_path / "out") == _files(artifact)
    (engine,) = found.artifact.manifest.engines
    assert engine["compared"] == {"passes": True, "engine": True}
    assert "to the same bytes" in found.artifact.report()["remarks"][0]
    with lc.load(tmp_path / "out") as opened:
        assert opened.embed(["x"]).shape == (1, 64)


def test_a_recipe_is_found_again_beside_its_model(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "here/m")
    (tmp_path / "here/r.yaml").write_text("model: ./m\ntask: feature-extraction\n")
    built = lc.build(tmp_path / "here/r.yaml", output=tmp_path / "out", check=False, verify=False)
    again = lc.rebuild(built, output=tmp_path / "again").artifact
    assert again is not None
    assert lc.rebuild(again).manifest.digest() == built.manifest.digest()


def test_a_manifest_is_kept_beside_its_recipe(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From wherever it is rebuilt; a model that is named is seen from there, though."""
    shutil.copytree(model, tmp_path / "here/m")
    (tmp_path / "here/r.yaml").write_text("model: ./m\ntask: feature-extraction\n")
    built = lc.build(tmp_path / "here/r.yaml", output=tmp_path / "out", check=False, verify=False)
    kept = shutil.copy(built.path / MANIFEST, tmp_path / "here/r.lock.json")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    for path in (kept, built.path / MANIFEST):
        assert lc.rebuild(path).manifest.digest() == built.manifest.digest()
    shutil.move(tmp_path / "here/m", "moved")
    assert lc.rebuild(built, model="moved").manifest.digest() == built.manifest.digest()
    with pytest.raises(SourceError, match="does not exist") as caught:
        lc.rebuild(kept)
    assert caught.value.where == "manifest.lock.recipe.model"
    with pytest.raises(SourceError, match="does not exist") as caught:
        lc.rebuild(kept, model="m")
    assert caught.value.where == "model"


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda folder: _flip(folder / "model.safetensors"), "another model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda folder: (folder / "added_tokens.json").write_text("{}"), "added_tokens.json besi"),
    ],
)
def test_another_model_is_refused_before_it_is_built(
    artifact: Path, model: Path, tmp_path: Path, edit: Callable[[Path], Any], found: str
) -> None:
    other = shutil.copytree(model, tmp_path / "other")
    edit(other)
    with pytest.raises(SourceError, match="not what the artifact was made from") as caught:
        lc.rebuild(artifact, model=other, output=tmp_path / "out")
    assert found in (caught.value.found or "")
    assert not (tmp_path / "out").exists()


def _flip(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_other_bytes_are_told_and_not_kept(artifact: Path, tmp_path: Path) -> None:
    manifest = open_artifact(artifact).manifest
    name = "engines/ort-cpu/weights.bin"
    files = {**manifest.files, name: replace(manifest.files[name], sha256="0" * 64)}
    tools = {**manifest.tools, "transformers": "5.0.0", "lepton-compile": "0.0.1"}
    (tmp_path / MANIFEST).write_text(replace(manifest, files=files, tools=tools).to_json())
    with pytest.raises(GateError, match="not the same") as caught:
        lc.rebuild(tmp_path / MANIFEST, output=tmp_path / "out")
    error = caught.value
    assert (error.exit_code, error.where) == (3, str(tmp_path / MANIFEST))
    count = len(files)
    assert error.found == f"another {name}; {count - 1} of {count} files are equal"
    assert "transformers was 5.0.0 and is" in (error.hint or "")
    assert "pip install transformers==5.0.0" in (error.hint or "")
    assert (error.report or {})["other"] == [name]
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST}


def test_what_a_loader_reads_is_part_of_the_proof(artifact: Path, tmp_path: Path) -> None:
    ranges = {**open_artifact(artifact).manifest.ranges, "batch": [1, 8]}
    with pytest.raises(GateError) as caught:
        lc.rebuild(_forged(artifact, tmp_path / "copy", ranges=ranges))
    assert "another manifest.ranges" in (caught.value.found or "")
    assert "report it" in (caught.value.hint or "")


def test_versions_that_make_no_difference_are_told(artifact: Path, tmp_path: Path) -> None:
    tools = {**open_artifact(artifact).manifest.tools, "transformers": "5.0.0"}
    found = lc.rebuild(_forged(artifact, tmp_path / "copy", tools=tools))
    assert list(found.changes) == ["transformers"]
    assert found.changes["transformers"][0] == "5.0.0"


def test_other_code_of_ours_is_told(artifact: Path, tmp_path: Path) -> None:
    """A version has many commits."""
    lock = {**open_artifact(artifact).manifest.lock, "code": "f" * 64}
    found = lc.rebuild(_forged(artifact, tmp_path / "copy", lock=lock))
    assert found.changes == {"code of lepton-compile": ("f" * 12, own_code()[:12])}
    assert own_code.__wrapped__() == own_code()
    lock.pop("code")  # as manifests were at first
    assert lc.rebuild(_forged(artifact, tmp_path / "older", lock=lock)).changes == {}


def test_an_artifact_is_replaced_by_its_own_rebuild_where_that_is_asked_for(
    artifact: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    with pytest.raises(ArtifactError, match="output folder exists"):
        lc.rebuild(copy, output=copy)
    assert lc.rebuild(copy, output=copy, overwrite=True).artifact is not None
    assert _files(copy) == _files(artifact)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_damaged_artifact_proves_nothing(artifact: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    _flip(copy / "loader.py")
    with pytest.raises(ArtifactError, match="changed or damaged"):
        lc.rebuild(copy)


@needs_library
def test_kernels_are_those_of_then(
    model: Path, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that was built without a compiler is built without; one with ours demands one."""
    with monkeypatch.context() as without:
        without.setattr("lepton_plugins.native.why_not", lambda: "no compiler")
        plain = _built(model, tmp_path / "plain")
        with pytest.raises(EngineError, match="kernels cannot be made here"):
            lc.rebuild(artifact)
    assert "kernels" not in lc.rebuild(plain).manifest.engines[0]


def test_what_an_option_left_out_is_no_mistake(model: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"model: {model}\ntask: feature-extraction\ntarget: trt-rtx\nquantize: fp16\n"
        "compute_capabilities: ['8.9']\npasses:\n"
        "  {expect: {lower-trt-attention: 2}, disable: [lower-trt-rotary-tables]}\n"
        "per_target: {trt-rtx: {gates: {cosine: 0.9}}}\n"
    )
    options = {"target": ["ort-cpu"], "quantize": "int4", "check": False, "verify": False}
    built = lc.build(recipe, output=tmp_path / "out", **options)
    assert lc.rebuild(built).manifest.digest() == built.manifest.digest()


@pytest.mark.parametrize("asked", ["hf:org/name", "hf:org/name@main"])
def test_a_model_of_the_hub_is_that_of_the_commit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """The branch has gone on since; snapshots are laid out as the hub's library keeps them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository, commits = tmp_path / "models--org--name", ("a" * 40, "b" * 40)
    for commit in commits:
        shutil.copytree(model, repository / "snapshots" / commit)
    _flip(repository / "snapshots" / commits[1] / "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commits[0])
    recipe = {**RECIPE, "model": asked, "verify": False, "check": False}
    built = lc.build(recipe, output=tmp_path / "out")
    (repository / "refs/main").write_text(commits[1])
    assert lc.rebuild(built).manifest.lock["revision"] == commits[0]
    assert lc.verify(built, tokens=40).engines


def test_several_targets_of_one_artifact(model: Path, tmp_path: Path) -> None:
    own = {"ort-cuda": {"quantize": "fp16"}}
    built = _built(model, tmp_path / "out", target=["ort-cpu", "ort-cuda"], per_target=own)
    again = lc.rebuild(built, output=tmp_path / "again")
    assert _files(tmp_path / "again") == _files(built)
    assert [engine["target"] for engine in again.manifest.engines] == ["ort-cpu", "ort-cuda"]


def test_what_is_fitted_to_a_sample_names_its_machine(tmp_path: Path) -> None:
    folder = saved("LlamaForCausalLM", llama(vocab_size=260), tmp_path / "llama")
    byte_tokenizer(folder)
    awq = {"algorithm": "awq", "bits": 4}
    built = _built(folder, tmp_path / "out", task="text-generation", quantize=awq)
    lock = open_artifact(built).manifest.lock
    assert "avx" in lock["machine"]["features"]
    assert lc.rebuild(built).changes == {}
    other = {**lock, "machine": {"processor": "another", "features": ["sse"]}}
    found = lc.rebuild(_forged(built, tmp_path / "copy", lock=other)).changes
    assert found["processor"][0] == "another"
    assert found["features"][0] == "sse"
    assert "build on such a processor" in hint_of(found)


def _t5() -> Any:
    sizes = {"vocab_size": 260, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4}
    return transformers.T5Config(**sizes, num_layers=2, decoder_start_token_id=0)


def _vit() -> Any:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return transformers.ViTConfig(**sizes, intermediate_size=128, image_size=32, patch_size=8)


def _lfm2() -> Any:
    kinds = {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2}
    sizes = {"vocab_size": 260, "hidden_size": 64, "intermediate_size": 128}
    return transformers.Lfm2Config(**sizes, **kinds, num_hidden_layers=2, num_attention_heads=4)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("T5ForConditionalGeneration", _t5),
        ("ViTForImageClassification", _vit),
        ("Lfm2ForCausalLM", _lfm2),
    ],
)
def test_every_kind_of_model(kind: str, config: Callable[[], Any], tmp_path: Path) -> None:
    """The manifest alone brings back what was fitted into the recipe from the model."""
    folder = saved(kind, config(), tmp_path / "model")
    recipe = {"model": str(folder), "quantize": "int4", "tactics": "default"}
    built = lc.build(recipe, output=tmp_path / "out", check=False, verify=False)
    lc.rebuild(built.path / MANIFEST, output=tmp_path / "again")
    assert _files(tmp_path / "again") == _files(built.path)


def test_code_that_somebody_else_trusted_is_not_run(artifact: Path, tmp_path: Path) -> None:
    folder, proof = remote_code_folder(tmp_path)
    manifest = open_artifact(artifact).manifest
    said = {**manifest.model, "source": str(folder), "trust_remote_code": True}
    lock = {**manifest.lock, "recipe": {**manifest.lock["recipe"], "trust_remote_code": True}}
    with pytest.raises(SourceError, match="needs Python code") as caught:
        lc.rebuild(_forged(artifact, tmp_path / "copy", model=said, lock=lock))
    assert "--trust-remote-code" in (caught.value.hint or "")
    assert not proof.exists()


def test_a_plan_of_the_same_network_is_built_again(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few times: the builder makes one of some plans."""
    tries: list[str] = []

    def same(recorded: Recorded, built: Manifest) -> None:
        tries.append(built.task)
        if len(tries) != TRIES:
            raise OtherPlanError("another plan")

    monkeypatch.setattr(Recorded, "demand_same", same)
    assert lc.rebuild(artifact).manifest.files
    with pytest.raises(OtherPlanError):
        lc.rebuild(artifact)
    assert len(tries) == 2 * TRIES


def test_a_ceiling_of_another_machine_is_none_of_this(artifact: Path, tmp_path: Path) -> None:
    lock = open_artifact(artifact).manifest.lock
    low = {**lock, "recipe": {**lock["recipe"], "max_memory": 1}}
    assert lc.rebuild(_forged(artifact, tmp_path / "copy", lock=low)).changes == {}
