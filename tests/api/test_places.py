"""Where a build writes when it is not told."""

from __future__ import annotations

from pathlib import Path

import pytest

from lepton_compile.api.places import output_of, source_of
from lepton_compile.errors import SourceError
from lepton_compile.recipe import load_recipe
from tests import small


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("./models/Qwen2.5-0.5B", "Qwen2.5-0.5B-none"),
        ("hf:org/Llama-3.2@0123abc", "Llama-3.2-none"),
        ("./models/phi-3.5.gguf", "phi-3.5-none"),
        ("package:samples/model.onnx", "samples-none"),
        ("package:samples/model", "samples-none"),
        ("hf:org/model@0123abc", "org-none"),
        ("./minilm/model/model.onnx", "minilm-none"),
        ("./model", "model-none"),
        ("package:model", "model-none"),
        ("package:samples", "samples-none"),
        ("./", "model-none"),
        ("../", "model-none"),
    ],
)
def test_a_folder_is_named_after_the_model(model: str, folder: str) -> None:
    assert output_of(load_recipe({"model": model})).as_posix() == f"out/{folder}"


@pytest.mark.parametrize(
    ("adapter", "message"), [("none", "does not exist"), ("file", "is not a folder")]
)
def test_a_missing_adapter_is_told_at_the_adapter(
    adapter: str, message: str, tmp_path: Path
) -> None:
    small.saved("LlamaForCausalLM", small.llama(), tmp_path / "base")
    (tmp_path / "file").write_text("")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: base\ntarget: ort-cpu\nadapter: {adapter}\n")
    with pytest.raises(SourceError, match=f"The adapter {message}") as caught:
        source_of(load_recipe(recipe))
    assert caught.value.where == f"{recipe}:3"
    assert caught.value.found == str(tmp_path / adapter)
