"""Damaged and hostile model files: each gives one clear error, and nothing of them is run."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lepton_compile.errors import CheckpointError, ExportError, SourceError
from lepton_compile.export.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint
from lepton_compile.export.checkpoint.gguf_header import read_header
from lepton_compile.export.export import export
from lepton_compile.export.source import resolve
from tests.export import gguf_files

ANY_FILE = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def header(entries: dict[str, Any], data: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


LIES = {
    "empty": b"",
    "length alone": struct.pack("<Q", 8),
    "length beyond the file": header({}, length=1 << 40),
    "length negative": b"\xff" * 8 + b"{}",
    "not json": struct.pack("<Q", 4) + b"abcd",
    "a list": struct.pack("<Q", 2) + b"[]",
    "data missing": header({"a": entry(0, 16, [4])}, b""),
    "data cut": header({"a": entry(0, 16, [4])}, b"\0" * 15),
    "data left over": header({"a": entry(0, 16, [4])}, b"\0" * 17),
    "overlap": header({"a": entry(0, 12, [3]), "b": entry(8, 16, [2])}),
    "hole": header({"a": entry(0, 4, [1]), "b": entry(8, 16, [2])}),
    "offsets reversed": header({"a": entry(16, 0, [4])}),
    "offsets negative": header({"a": entry(-16, 0, [4])}),
    "shape larger than the data": header({"a": entry(0, 16, [1 << 30])}),
    "shape overflows": header({"a": entry(0, 16, [1 << 62, 1 << 62])}),
    "shape negative": header({"a": entry(0, 16, [-4])}),
    "unknown type": header({"a": entry(0, 16, [4], "F33")}),
    "no type": header({"a": {"shape": [4], "data_offsets": [0, 16]}}),
}


@pytest.mark.parametrize("lie", LIES)
def test_safetensors_headers_that_lie(lie: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(LIES[lie])
    with pytest.raises(CheckpointError, match="not intact"):
        SafetensorsCheckpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 8, 40, -1])
def test_truncated_safetensors(keep: int, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(64)}, file)
    os.truncate(file, keep if keep >= 0 else file.stat().st_size + keep)
    with pytest.raises(CheckpointError, match="not intact") as caught:
        SafetensorsCheckpoint(tmp_path)
    assert str(file) in str(caught.value)


def test_file_that_shrinks_after_it_was_opened(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(64)}, file)
    tensor = SafetensorsCheckpoint(tmp_path).tensor("a")
    os.truncate(file, file.stat().st_size - 4)
    with pytest.raises(CheckpointError, match="ends before"):
        tensor.numpy()


@ANY_FILE
@given(data=st.binary(max_size=300))
def test_any_bytes_as_safetensors(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError):
        SafetensorsCheckpoint(tmp_path)


INDEXES: dict[str, Any] = {
    "not json": "{",
    "too deep": "[" * 100_000,
    "no map": "{}",
    "map of numbers": json.dumps({"weight_map": {"a": 1}}),
    "path above": json.dumps({"weight_map": {"a": "../model.safetensors"}}),
    "absolute path": json.dumps({"weight_map": {"a": "/etc/model.safetensors"}}),
    "windows path": json.dumps({"weight_map": {"a": "..\\model.safetensors"}}),
    "pickle": json.dumps({"weight_map": {"a": "pytorch_model.bin"}}),
    "missing shard": json.dumps({"weight_map": {"a": "gone.safetensors"}}),
    "name of no file": json.dumps({"weight_map": {"a": f"{'a' * 5000}.safetensors"}}),
    "tensor elsewhere": json.dumps({"weight_map": {"b": "one.safetensors"}}),
}


@pytest.mark.parametrize("index", INDEXES)
def test_shard_indexes_that_lie(index: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for place in (tmp_path / "model.safetensors", folder / "one.safetensors"):
        save_file({"a": torch.ones(2)}, place)
    (folder / "model.safetensors.index.json").write_text(INDEXES[index])
    with pytest.raises(CheckpointError):
        SafetensorsCheckpoint(folder)


def test_two_shards_with_the_same_tensor(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_file({"a": torch.ones(2), name: torch.ones(1)}, tmp_path / f"{name}.safetensors")
    weight_map = {"a": "one.safetensors", "two": "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match="same tensor"):
        SafetensorsCheckpoint(tmp_path)


@pytest.fixture(scope="module")
def gguf_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    return gguf_files.write(path, "llama", gguf_files.tiny_model("llama")).read_bytes()


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.01, 0.05, 0.5, 0.99])
def test_truncated_gguf(part: float, gguf_bytes: bytes, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf_bytes[: int(len(gguf_bytes) * part)])
    with pytest.raises(CheckpointError) as caught:
        GGUFCheckpoint(read_header(file))
    assert str(file) in str(caught.value)


def gguf(keys: int = 0, tensors: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + body + b"\0" * 64


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def info(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    extents = b"".join(struct.pack("<Q", extent) for extent in shape)
    return text(name) + struct.pack("<I", len(shape)) + extents + struct.pack("<IQ", kind, offset)


GGUF_LIES = {
    "not gguf": b"GGML" + b"\0" * 64,
    "version 1": gguf(version=1),
    "version of the other byte order": gguf(version=3 << 24),
    "keys without end": gguf(keys=1 << 60),
    "tensors without end": gguf(tensors=1 << 60),
    "key longer than the file": gguf(keys=1, body=struct.pack("<Q", 1 << 60)),
    "value of unknown type": gguf(keys=1, body=key(b"a", 77, b"")),
    "array larger than the file": gguf(keys=1, body=key(b"a", 9, struct.pack("<IQ", 4, 1 << 50))),
    "strings without end": gguf(keys=1, body=key(b"a", 9, struct.pack("<IQ", 8, 1 << 50))),
    "word longer than the file": gguf(
        keys=1, body=key(b"a", 9, struct.pack("<IQQ", 8, 1, 1 << 60))
    ),
    "arrays in arrays": gguf(keys=1, body=key(b"a", 9, struct.pack("<IQ", 9, 1) * 50)),
    "key twice": gguf(keys=2, body=key(b"a", 4, b"\1\0\0\0") * 2),
    "alignment zero": gguf(keys=1, body=key(b"general.alignment", 4, b"\0" * 4)),
    "alignment of text": gguf(keys=1, body=key(b"general.alignment", 8, text(b"x"))),
    "too many axes": gguf(tensors=1, body=info(b"a", (1,) * 9)),
    "no axes": gguf(tensors=1, body=info(b"a", ())),
    "empty axis": gguf(tensors=1, body=info(b"a", (0,))),
    "axis without end": gguf(tensors=1, body=info(b"a", (1 << 62, 1 << 62))),
    "unknown tensor type": gguf(tensors=1, body=info(b"a", (4,), kind=999)),
    "part of a block": gguf(tensors=1, body=info(b"a", (33,), kind=8)),
    "beyond the file": gguf(tensors=1, body=info(b"a", (4,), offset=1 << 40)),
    "tensor twice": gguf(tensors=2, body=info(b"a", (4,)) * 2),
    "overlap": gguf(tensors=2, body=info(b"a", (8,)) + info(b"b", (8,), offset=16)),
}


@pytest.mark.parametrize("lie", GGUF_LIES)
def test_gguf_headers_that_lie(lie: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(GGUF_LIES[lie])
    with pytest.raises(CheckpointError):
        GGUFCheckpoint(read_header(tmp_path / "m.gguf"))


@ANY_FILE
@given(place=st.integers(0, 6000), value=st.integers(0, 255))
def test_a_changed_byte_never_crashes(
    place: int, value: int, gguf_bytes: bytes, tmp_path: Path
) -> None:
    """Either the file still reads in full, or it gives our error."""
    data = bytearray(gguf_bytes)
    data[place] = value
    (tmp_path / "m.gguf").write_bytes(data)
    with suppress(SourceError):
        checkpoint = GGUFCheckpoint(read_header(tmp_path / "m.gguf"))
        for name, tensor in checkpoint.names().items():
            assert checkpoint.tensor(name).numpy().shape == tensor.shape
        resolve("m.gguf", tmp_path).config()


def test_gguf_of_an_unknown_architecture(tmp_path: Path) -> None:
    body = key(b"general.architecture", 8, text(b"bloom")) + info(b"token_embd.weight", (4,))
    (tmp_path / "m.gguf").write_bytes(gguf(keys=1, tensors=1, body=body))
    for open_it in (lambda s: s.checkpoint(), lambda s: s.config()):
        with pytest.raises(SourceError, match="architecture") as caught:
            open_it(resolve("m.gguf", tmp_path))
        assert "llama" in caught.value.available


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_weights_are_refused_unopened(name: str, tmp_path: Path) -> None:
    folder, proof = tmp_path / "model", tmp_path / "was-run"
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(folder)
    (folder / name).write_bytes(pickle.dumps(Bomb(proof)))
    with pytest.raises(SourceError, match="pickled") as caught:
        resolve(str(folder), tmp_path)
    assert name in str(caught.value)
    assert "save_pretrained" in (caught.value.hint or "")
    assert not proof.exists()


def remote_code_folder(tmp_path: Path) -> tuple[Path, Path]:
    folder, proof = tmp_path / "model", tmp_path / "was-run"
    folder.mkdir()
    config = {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_own.py").write_text(
        "from pathlib import Path\nfrom transformers import PretrainedConfig\n"
        f"Path({str(proof)!r}).touch()\n"
        "class OwnConfig(PretrainedConfig):\n    model_type = 'own'\n"
    )
    save_file({"a": torch.ones(2)}, folder / "model.safetensors")
    return folder, proof


def test_remote_code_is_not_run_unless_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, proof = remote_code_folder(tmp_path)
    with pytest.raises(SourceError, match="needs Python code") as caught:
        resolve(str(folder), tmp_path)
    assert "trust_remote_code: true" in (caught.value.hint or "")
    assert not proof.exists()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    assert resolve(str(folder), tmp_path, trust_remote_code=True).config().model_type == "own"
    assert proof.exists()


CONFIGS = {
    "no config": None,
    "not json": "{",
    "too deep": "[" * 100_000,
    "a list": "[]",
    "quantized by a list": json.dumps({"model_type": "llama", "quantization_config": [1]}),
    "quantized already": json.dumps(
        {"model_type": "llama", "quantization_config": {"quant_method": "bitnet"}}
    ),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_folders_that_are_no_models(config: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    if CONFIGS[config] is not None:
        (tmp_path / "config.json").write_text(str(CONFIGS[config]))
    with pytest.raises(SourceError, match=r"config\.json|quantization_config|quantized"):
        resolve(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"architectures": 3}, {"architectures": [3]}, {"architectures": "LlamaForCausalLM"}]
    + [{"text_config": value} for value in (0, "a", [], {"a": 1})],
    ids=str,
)
def test_what_transformers_takes_and_no_model_has(change: dict[str, Any], tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **change}))
    with pytest.raises(SourceError) as caught:
        resolve(str(tmp_path), tmp_path).config()
    assert caught.value.where == str(tmp_path / "config.json")
    assert f"{next(iter(change.values()))!r}" in str(caught.value.found)


@pytest.mark.parametrize(
    ("file", "message"), [("adapter_config.json", "adapter"), (None, "no weights")]
)
def test_folders_without_weights(file: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    if file:
        (tmp_path / file).write_text("{}")
    with pytest.raises(SourceError, match=message):
        resolve(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["b-Q8_0.gguf", "a.gguf", "README.md"], ["a.gguf", "b-Q8_0.gguf"]),
        (["onnx/model.onnx", "0_Transformer/config.json", "modules.json"], ["0_Transformer"]),
        (["refs/main", "snapshots/abc/config.json"], ["snapshots/abc"]),
        ([f"{n}/config.json" for n in range(9)], [*"01234"]),
    ],
    ids=["gguf", "modules", "cache", "many"],
)
def test_folders_that_hold_a_model_further_in(
    files: list[str], named: list[str], tmp_path: Path
) -> None:
    for each in files:
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).write_text("{}")
    with pytest.raises(SourceError, match=r"no config\.json") as caught:
        resolve(str(tmp_path), tmp_path)
    places = ", ".join(str(tmp_path / each) for each in named)
    hint = str(caught.value.hint)
    assert f": {places}{' and 4 more' * (len(files) == 9)}." in hint
    assert ("pooling: mean" in hint) == ("modules.json" in files)


def test_an_adapter_in_place_of_a_model_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(SourceError, match="an adapter, not a model") as caught:
        resolve(str(tmp_path), tmp_path)
    assert "org/base" in str(caught.value.found)
    assert "--adapter" in str(caught.value.hint)


FACTORS = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 32,
    "short_factor": [1.0] * 4,
}


@pytest.mark.parametrize(
    ("change", "key", "part"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "rope_scaling.factor", "0"),
        ({"rope_parameters": {"type": "yarn", "factor": -1.0}}, "rope_parameters.factor", "-1.0"),
        ({"text_config": {"rope_scaling": {"factor": "2"}}}, "text_config.rope_scaling", "'2'"),
        ({"rope_parameters": {"full_attention": {"factor": 1e999}}}, "full_attention", "inf"),
        ({"rope_parameters": {"rope_theta": float("nan")}}, "rope_theta", "nan"),
        ({"rope_scaling": FACTORS | {"long_factor": [1.0] * 10**5}}, "long_factor", "100,000"),
        ({"rope_scaling": FACTORS | {"long_factor": [1.0, None]}}, "long_factor", "None"),
        ({"rope_scaling": FACTORS | {"long_factor": 4.0}}, "long_factor", "4.0"),
        ({"rope_scaling": FACTORS | {"long_factor": [1.0] * 3}}, "long_factor", "3 numbers, of 4"),
        ({"rope_scaling": {"factor": 1e-300}}, "rope_scaling.factor", "1e-300"),
        ({"rope_scaling": {"attention_factor": 1e300}}, "rope_scaling.attention_factor", "1e+300"),
        ({"rope_scaling": {"low_freq_factor": -1.0}}, "rope_scaling.low_freq_factor", "-1.0"),
    ],
    ids=[*"abcdefghijkl"],
)
def test_rotary_embeddings_that_cannot_be_computed(
    change: dict[str, Any], key: str, part: str, tmp_path: Path
) -> None:
    """Told by their key, before transformers warns of all its numbers one after another."""
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **change}))
    with pytest.raises(SourceError, match="rotary embedding") as caught:
        resolve(str(tmp_path), tmp_path)
    assert key in str(caught.value)
    assert part in str(caught.value.found)
    assert caught.value.where == str(tmp_path / "config.json")


SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"rope_parameters": {"rope_type": "nonsense", "rope_theta": 1e4}}, "nonsense"),
        ({"hidden_act": "nonsense"}, "nonsense"),
        ({"num_attention_heads": 0}, "ZeroDivisionError"),
        ({"num_key_value_heads": 0}, "ZeroDivisionError"),
        ({"hidden_size": -32}, "negative"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"hidden_size": 10**9}, "1000000000"),
        ({"num_hidden_layers": 10**6}, "1,000,000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_configurations_that_describe_no_model(
    change: dict[str, Any], part: str, tmp_path: Path
) -> None:
    """Each names the file, and none makes a tensor of the size that it asks for."""
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises((ExportError, SourceError)) as caught:
        export(resolve(str(tmp_path), tmp_path), "text-generation")
    assert caught.value.where == str(file)
    assert part in str(caught.value.found)
    assert caught.value.hint
