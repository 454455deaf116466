"""What stands for pictures in prompts: what the processors of transformers write, and refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from lepton_compile.errors import SourceError
from lepton_compile.export.picture_prompts import picture_prompts
from lepton_compile.export.source import Source, resolve
from lepton_compile.runtime.loader_edge import in_rows

from .zoo_pictured import PICTURED, PLACEHOLDER, SIZED

ROWS = 3
MARKS = ["<fake_token_around_image>", "<global-img>", "<img>", "</img>", "<row_1_col_1>"]
WORDS = ["[UNK]", "a", "b", "c", "d", "e", "f"]


def _source(kind: str, folder: Path, name: str = "<image>", marks: list[str] = MARKS) -> Source:
    """A configuration, and a tokenizer whose placeholder is the token after ``WORDS``."""
    assert len(WORDS) == PLACEHOLDER
    (PICTURED | SIZED)[kind][0]().save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([name, *marks])
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    return resolve(str(folder), folder, weights=False)


def _written(told: dict[str, Any], rows: int, columns: int) -> str:
    """As a loader writes it for a picture that is one tile (0, 0), or so many."""
    if not rows:
        return str(told["one"])
    grid = [
        "".join(
            told["tile"].replace("{row}", f"{row + 1}").replace("{column}", f"{column + 1}")
            for column in range(columns)
        )
        for row in range(rows)
    ]
    lines = "".join(line + told["line"] for line in grid)
    return f"{told['first']}{lines}{told['whole']}"


@pytest.mark.parametrize("grid", [(0, 0), (1, 2), (3, 2)])
@pytest.mark.parametrize("kind", ["idefics3", "smolvlm"])
def test_tiles_are_marked_as_transformers_marks_them(
    kind: str, grid: tuple[int, int], tmp_path: Path
) -> None:
    told = picture_prompts(_source(kind, tmp_path), ROWS)
    assert (told["placeholder"], told["tokens"]) == (PLACEHOLDER, ROWS)
    wanted = get_image_prompt_string(*grid, ROWS, MARKS[0], "<image>", MARKS[1])
    if kind == "idefics3":
        named = SimpleNamespace(
            image_seq_len=ROWS,
            fake_image_token=MARKS[0],
            image_token="<image>",
            global_image_tag=MARKS[1],
        )
        seen = {"rows": [[grid[0]]], "cols": [[grid[1]]]}
        assert Idefics3Processor.replace_image_token(named, seen, 0) == wanted
    assert _written(told, *grid).replace("<image>", "<image>" * ROWS) == wanted


@pytest.mark.parametrize("tiles", [1, 7])
def test_pictures_are_framed_as_transformers_frames_them(tiles: int, tmp_path: Path) -> None:
    told = picture_prompts(_source("internvl", tmp_path, "<context>"), ROWS)
    named = SimpleNamespace(
        start_image_token="<img>",
        end_image_token="</img>",
        image_token="<context>",
        image_seq_length=ROWS,
    )
    wanted = InternVLProcessor.replace_image_token(named, {"num_patches": [tiles]}, 0)
    # One tile is the whole; of several the whole is one more.
    grid = (0, 0) if tiles == 1 else (2, (tiles - 1) // 2)
    assert _written(told, *grid).replace("<context>", "<context>" * ROWS) == wanted


def test_pictures_are_asked_for_by_what_begins_them(tmp_path: Path) -> None:
    marks = ["<start_of_image>", "<end_of_image>"]
    source = _source("gemma3", tmp_path, "<image_soft_token>", marks)
    told = picture_prompts(source, ROWS)
    assert (told["mark"], told["mutual"]) == (marks[0], True)
    names = zip(("boi_token", "eoi_token", "image_token"), [*marks, told["name"]], strict=True)
    tokenizer = SimpleNamespace(**dict(names), boi_token_id=8)
    theirs = Gemma3Processor.__new__(Gemma3Processor)
    with pytest.raises(TypeError):  # once it has made the texts
        theirs.__init__(None, tokenizer, image_seq_length=ROWS)
    written = told["one"].replace(told["name"], told["name"] * ROWS)
    assert written == theirs.full_image_sequence


def test_a_picture_without_marks(tmp_path: Path) -> None:
    told = picture_prompts(_source("llava", tmp_path, "{image}", []), ROWS)
    texts = dict.fromkeys(("name", "mark", "one"), "{image}")
    assert told == {"placeholder": PLACEHOLDER, "tokens": ROWS, "mutual": False, **texts}


@pytest.mark.parametrize(("kind", "window"), [("qwen2_5_vl", 3), ("qwen3_vl", 0)])
def test_a_picture_of_any_size(kind: str, window: int, tmp_path: Path) -> None:
    """The placeholder as often as it has tokens, between the marks that are in a prompt."""
    told = picture_prompts(_source(kind, tmp_path, "<|image_pad|>", []), 0)
    texts = dict.fromkeys(("name", "mark", "one"), "<|image_pad|>")
    grid = {"patch": 4, "merge": 2, "frames": 2, "window": window, "axes": 3}
    assert told == {"placeholder": PLACEHOLDER, "grid": grid, "mutual": False, **texts}
    seen = {"image_grid_thw": torch.tensor([[1, 4, 6]])}
    theirs = Qwen2VLProcessor.__new__(Qwen2VLProcessor)
    theirs.image_processor = SimpleNamespace(merge_size=2)
    theirs.image_token = "<|image_pad|>"
    assert told["one"] * 6 == theirs.replace_image_token(seen, 0)


@pytest.mark.parametrize(
    ("kind", "name", "marks", "written"),
    [
        ("mistral3", "[IMG]", ["[IMG_BREAK]", "[IMG_END]"], "{3}[IMG_BREAK]{3}[IMG_END]"),
        ("lighton_ocr", "<|image_pad|>", [], "{3}{3}"),
        ("gemma4", "<|image|>", ["<|image>", "<image|>"], ""),
    ],
)
def test_what_stands_around_a_picture_of_any_size(
    kind: str, name: str, marks: list[str], written: str, tmp_path: Path
) -> None:
    """As processors write one of two rows of three tokens; some of them ask for torchvision."""
    told = picture_prompts(_source(kind, tmp_path, name, marks), 0)
    unit = told["grid"]["patch"] * told["grid"]["merge"]
    found = in_rows({"line": None, **told}, np.zeros((3, 2 * unit, 3 * unit)))
    if kind == "gemma4":
        theirs: Any = Gemma4Processor.__new__(Gemma4Processor)
        theirs.image_token, theirs.boi_token, theirs.eoi_token = name, *marks
        written = theirs.replace_image_token({"num_soft_tokens_per_image": [6]}, 0)
    assert found == written.replace("{3}", 3 * name)


@pytest.mark.parametrize(
    ("kind", "name", "marks"),
    [
        ("gemma4", "<|image|>", ["<|image>"]),
        ("gemma4", "<|image|>", ["<image|>"]),
        ("mistral3", "[IMG]", ["[IMG_BREAK]"]),
        ("mistral3", "[IMG]", ["[IMG_END]"]),
    ],
)
def test_marks_of_pictures_of_any_size_that_are_no_tokens(
    kind: str, name: str, marks: list[str], tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="no tokens of their own for what stands for images"):
        picture_prompts(_source(kind, tmp_path, name, marks), 0)


def test_without_a_tokenizer(tmp_path: Path) -> None:
    PICTURED["smolvlm"][0]().save_pretrained(tmp_path)
    told = picture_prompts(resolve(str(tmp_path), tmp_path, weights=False), ROWS)
    assert told == {"placeholder": PLACEHOLDER, "tokens": ROWS, "mutual": False}


@pytest.mark.parametrize(
    ("kind", "marks"),
    [
        ("smolvlm", MARKS[1:]),
        ("idefics3", MARKS[1:]),
        ("internvl", ["<img>"]),
        ("internvl", ["</img>"]),
        ("gemma3", ["<start_of_image>"]),
        ("llava-behind", MARKS),
    ],
)
def test_a_tokenizer_that_lacks_the_marks(kind: str, marks: list[str], tmp_path: Path) -> None:
    """Or the placeholder itself."""
    source = _source(kind, tmp_path, marks=marks)
    with pytest.raises(SourceError, match="no tokens of their own for what stands") as caught:
        picture_prompts(source, ROWS)
    assert caught.value.where == str(tmp_path)
    assert "and the placeholder" in str(caught.value.found)
