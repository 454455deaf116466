"""Vision-language models, and recipes for them, that are refused before anything is traced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

import lepton_compile as lc
from lepton_compile.errors import ExportError, RecipeError, SourceError
from lepton_compile.export.image_text import check_image_text
from lepton_compile.export.image_text_kinds import IMAGE_TEXT_KINDS
from lepton_compile.export.task_names import infer_task
from lepton_compile.export.text_part import TEXT_ALONE
from tests.passes.support import load
from tests.small import llama

from .harness import compiled, save
from .zoo_pictured import (
    BLOCKS,
    CLIP,
    EVEN,
    PICTURED,
    PIXTRAL,
    RASTER,
    SHARED,
    SIZED,
    SQUARES,
    TOWER,
    pictured,
)

TASK = "image-text-to-text"
CLASSES = {
    "gemma4": "Gemma4ForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
    "idefics3": "Idefics3ForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "glm46v": "Glm46VForConditionalGeneration",
    "glm4v": "Glm4vForConditionalGeneration",
    "glm_ocr": "GlmOcrForConditionalGeneration",
    "lighton_ocr": "LightOnOcrForConditionalGeneration",
    "mistral3": "Mistral3ForConditionalGeneration",
    "paddleocr_vl": "PaddleOCRVLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "smolvlm": "SmolVLMForConditionalGeneration",
}
LANGUAGE_ALONE = "text-generation takes the language model out of"


def _folder(kind: str, folder: Path, **changes: Any) -> Path:
    """A configuration of the zoo, and what is other in its file."""
    (PICTURED | SIZED)[kind][0]().save_pretrained(folder)
    file = folder / "config.json"
    named = {"architectures": [CLASSES[kind]], **changes}
    file.write_text(json.dumps(json.loads(file.read_text()) | named))
    return folder


@pytest.mark.parametrize("kind", IMAGE_TEXT_KINDS)
def test_the_task_is_told_from_the_class(kind: str, tmp_path: Path) -> None:
    assert infer_task(CLASSES[kind]) == TASK
    assert lc.plan(model=str(_folder(kind, tmp_path))).task == TASK


@pytest.mark.parametrize("name", ["AyaVision", "PaliGemma", "Glm4vMoe", "LlavaNext"])
def test_other_kinds_are_refused_by_name(name: str) -> None:
    """Where the task is named; where it has to be told it is not, and both say what to do."""
    config = getattr(transformers, f"{name}Config")()
    with pytest.raises(ExportError, match="kind of vision-language model is not") as caught:
        check_image_text(config)
    assert caught.value.found == config.model_type
    assert caught.value.available == tuple(sorted(IMAGE_TEXT_KINDS))
    alone = name != "Glm4vMoe"  # whose language model has no class of its own
    assert str(caught.value.hint) == (TEXT_ALONE if alone else "compile another model")
    with pytest.raises(ExportError, match="cannot be told from its class") as caught:
        infer_task(f"{name}ForConditionalGeneration")
    assert LANGUAGE_ALONE in str(caught.value.hint)


def test_a_model_that_only_writes(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="kind of vision-language model is not"):
        lc.plan(model=str(tmp_path), task=TASK)


@pytest.mark.parametrize(
    ("kind", "changes", "error", "words", "found"),
    [
        ("smolvlm", {"image_token_id": None}, SourceError, "cannot make a config", "NoneType"),
        ("smolvlm", {"image_token_id": -1}, ExportError, "names no token that stands for", "-1"),
        ("llava", {"image_token_index": -200}, ExportError, "names no token that stands", "-200"),
        ("llava", {"vision_feature_layer": 4}, ExportError, "that the tower does not have", "4"),
        ("llava", {"vision_feature_layer": -5}, ExportError, "the tower does not have", "-5"),
        ("llava", {"vision_feature_layer": [1, 4]}, ExportError, "does not have", "[1, 4]"),
        ("llava", {"vision_feature_layer": []}, ExportError, "the tower does not have", "[]"),
        # transformers itself takes a 0 alone for no wish at all, and no list of InternVL.
        ("llava", {"vision_feature_layer": 0}, ExportError, "the tower does not have", "0"),
        ("internvl", {"vision_feature_layer": 3}, ExportError, "tower does not have", "3"),
        ("internvl", {"vision_feature_layer": [1]}, ExportError, "does not have", "[1]"),
        ("llava", {"vision_config": PIXTRAL}, ExportError, "has no class token", "default"),
        ("mistral3", {"vision_config": CLIP}, ExportError, "tower is another", "clip_vision"),
        (
            "lighton_ocr",
            {"vision_config": CLIP},
            ExportError,
            "tower is another one",
            "clip_vision",
        ),
        ("mistral3", {"vision_feature_layer": 3}, ExportError, "tower does not have", "3"),
        ("mistral3", {"vision_feature_layer": [-1]}, ExportError, "does not have", "[-1]"),
        ("mistral3", {"spatial_merge_size": 9}, ExportError, "in a way that no such", "9"),
        ("mistral3", {"image_token_index": -1}, ExportError, "names no token that stands", "-1"),
        (
            "paddleocr_vl",
            {"vision_config": {**RASTER, "hidden_size": 36}},
            *(ExportError, "in a way that no such", "36"),
        ),
        (
            "glm_ocr",
            {"vision_config": {**BLOCKS, "out_hidden_size": 63}},
            *(ExportError, "in a way that no such", "63"),
        ),
        ("gemma4", {"vision_config": None}, ExportError, "has no vision tower", "null"),
        (
            "gemma4",
            {"vision_config": {**SQUARES, "pooling_kernel_size": 1}},
            *(ExportError, "in a way that no such", "1"),
        ),
        ("gemma4", {"text_config": SHARED}, ExportError, "have the cache of others", "2"),
        (
            "paddleocr_vl",
            {"vision_config": {**RASTER, "head_dim": 8}},
            *(ExportError, "in a way that no such", "8"),
        ),
        ("gemma4", {"image_token_id": -1}, ExportError, "names no token that stands for", "-1"),
        ("qwen3_vl", {"image_token_id": -1}, ExportError, "names no token that stands for", "-1"),
    ],
)
def test_configurations_that_do_not_fit(
    kind: str,
    changes: dict[str, Any],
    error: type[lc.LeptonError],
    words: str,
    found: str,
    tmp_path: Path,
) -> None:
    if "image_token_index" in changes:
        changes = {**changes, "image_token_id": changes["image_token_index"]}
    with pytest.raises(error, match=words) as caught:
        lc.plan(model=str(_folder(kind, tmp_path, **changes)))
    assert found in str(caught.value.found)
    assert caught.value.hint


def test_parts_that_make_no_square(tmp_path: Path) -> None:
    """With that of the class among them."""
    whole = pictured("InternVLConfig", "qwen2", EVEN, vision_feature_select_strategy="full")
    save(whole, TASK, tmp_path)
    with pytest.raises(ExportError, match="parts of pictures are put together in squares") as e:
        compiled(tmp_path, TASK)
    assert "17 parts" in str(e.value.found)


def test_an_onnx_file(tmp_path: Path) -> None:
    import onnx_ir as ir

    ir.save(load("main (float[b, 3] x) => (y) { y = Relu (x) }"), tmp_path / "m.onnx")
    with pytest.raises(RecipeError, match="an ONNX file cannot be split") as caught:
        lc.plan(model=str(tmp_path / "m.onnx"), task=TASK)
    assert caught.value.found == TASK
    assert "the folder that it was exported from" in str(caught.value.hint)


def test_a_template_of_the_processor_that_nobody_reads(tmp_path: Path) -> None:
    """A plan says so; one for the words alone has nothing to do with it."""
    folder = _folder("llava", tmp_path)
    (folder / "processor_config.json").write_text('{"chat_template": "{% if a %}"}')
    with pytest.raises(SourceError, match="The chat template cannot be read") as caught:
        lc.plan(model=str(folder))
    assert caught.value.where == str(folder / "processor_config.json")
    assert lc.plan(model=str(folder), task="text-generation").task == "text-generation"


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        ("SmolVLMConfig", {"scale_factor": 3}, "3 x 32 x 32: shape"),  # of 4 x 4 parts
        ("InternVLConfig", {"downsample_ratio": 1 / 3}, "3 x 32 x 32: Height and width must be"),
        ("Gemma3Config", {"mm_tokens_per_image": 25}, "3 x 32 x 32: "),
    ],
)
def test_parts_that_cannot_be_put_together(
    kind: str, options: dict[str, Any], found: str, tmp_path: Path
) -> None:
    """A plan says so; a trace would, but without a word on sizes."""
    gemma = kind == "Gemma3Config"
    tower = {**EVEN, "model_type": "siglip_vision_model"} if gemma else EVEN
    text = "gemma3_text" if gemma else "llama"
    save(pictured(kind, text, tower, **options), TASK, tmp_path)
    assert_cannot_see(tmp_path, found)


def test_pictures_of_another_size_than_the_tower_takes(tmp_path: Path) -> None:
    folder = _folder("llava", tmp_path)
    size = {"height": 32, "width": 32}
    made = {"image_processor_type": "SiglipImageProcessor", "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(made))
    assert_cannot_see(folder, "3 x 32 x 32: Input image size")


def test_a_picture_of_which_nothing_stays(tmp_path: Path) -> None:
    """Its only part is left out, as if it stood for the class."""
    tower = {**TOWER, "model_type": "siglip_vision_model", "image_size": 8}
    save(pictured("LlavaConfig", "llama", tower), TASK, tmp_path)
    assert_cannot_see(tmp_path, "3 x 8 x 8: it makes no tokens")


def assert_cannot_see(folder: Path, found: str) -> None:
    with pytest.raises(ExportError, match="cannot take pictures of the size that its") as caught:
        lc.plan(model=str(folder), task=TASK)
    assert str(caught.value.found).startswith(found)
    assert "in transformers' own code" in str(caught.value.where)
    assert "image_size" in str(caught.value.hint)
