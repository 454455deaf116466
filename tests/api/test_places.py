"""Where a build writes when it is not told."""

from __future__ import annotations

import pytest

from lepton_compile.api.places import output_of
from lepton_compile.recipe import load_recipe


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("./models/Qwen2.5-0.5B", "Qwen2.5-0.5B-none"),
        ("hf:org/Llama-3.2@0123abc", "Llama-3.2-none"),
        ("./models/phi-3.5.gguf", "phi-3.5-none"),
        ("package:samples/model.onnx", "model-none"),
        ("package:samples", "samples-none"),
        ("./", "model-none"),
        ("../", "model-none"),
    ],
)
def test_a_folder_is_named_after_the_model(model: str, folder: str) -> None:
    assert output_of(load_recipe({"model": model})).as_posix() == f"out/{folder}"
