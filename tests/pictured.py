"""Tiny models that see pictures and write, and what transformers makes of the same prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.pictured_models import (
    GEMMA4,
    GLM,
    GRIDS,
    KINDS,
    PATCH,
    PIXTRALS,
    QWENS,
    SIDE,
    TOKEN,
    network,
)

__all__ = [
    "ASKS",
    "GRIDS",
    "KINDS",
    "PATCH",
    "QUANTIZED",
    "SIDE",
    "TOKEN",
    "Case",
    "Theirs",
    "check_quantized",
    "made",
    "pictures",
    "saved",
]

ENDS = "<end_of_utterance>"
SIGNS = "".join(map(chr, range(32, 127))) + "\n"
MARKS = {
    "gemma3": ("<image_soft_token>", "<start_of_image>", "<end_of_image>"),
    "internvl": ("<IMG_CONTEXT>", "<img>", "</img>"),
    "llava": ("<image>",),
    **dict.fromkeys(GEMMA4, ("<|image|>", "<|image>", "<image|>", "<|video|>", "<|audio|>")),
    **dict.fromkeys(PIXTRALS, ("[IMG]", "[IMG_BREAK]", "[IMG_END]")),
    **dict.fromkeys(GLM, ("<|image|>", "<|begin_of_image|>", "<|end_of_image|>")),
    "paddleocr_vl": ("<|IMAGE_PLACEHOLDER|>", "<|IMAGE_START|>", "<|IMAGE_END|>"),
    **dict.fromkeys(
        QWENS, ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
    ),
    "smolvlm": (
        *("<image>", "<fake_token_around_image>", "<global-img>"),
        *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
    ),
}
"""The placeholder, and what else stands around pictures."""
ASKS = {kind: marks[kind == "gemma3"] for kind, marks in MARKS.items()}
ASKS |= dict.fromkeys(QWENS, "<|vision_start|><|image_pad|><|vision_end|>")
ASKS |= dict.fromkeys(GLM, "<|begin_of_image|><|image|><|end_of_image|>")
ASKS["paddleocr_vl"] = "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"
"""What a prompt asks for a picture by."""
ANY_SIZE = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "size": {"shortest_edge": 4 * (2 * PATCH) ** 2, "longest_edge": 15 * (2 * PATCH) ** 2},
    "patch_size": PATCH,
    "merge_size": 2,
    "temporal_patch_size": 2,
}
EDGED = {
    "image_processor_type": "PixtralImageProcessorFast",
    "size": {"longest_edge": 6 * PATCH},
    "patch_size": {"height": PATCH, "width": PATCH},
}
FILLED = {
    "image_processor_type": "Gemma4ImageProcessor",
    "patch_size": PATCH,
    "pooling_kernel_size": 2,
    "max_soft_tokens": 70,
}
PREPROCESSORS: dict[str, dict[str, Any]] = {
    **{kind: {**ANY_SIZE} for kind in QWENS},
    **{kind: {**FILLED} for kind in GEMMA4},
    **{kind: {**ANY_SIZE, "image_processor_type": "Glm46VImageProcessor"} for kind in GLM},
    "paddleocr_vl": {
        **ANY_SIZE,
        "image_processor_type": "PaddleOCRVLImageProcessor",
        "temporal_patch_size": 1,
    },
    **{kind: {**EDGED} for kind in PIXTRALS},
    "gemma3": {
        "image_processor_type": "Gemma3ImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
    },
    "smolvlm": {
        "image_processor_type": "SmolVLMImageProcessor",
        "size": {"longest_edge": 2 * SIDE},
        "max_image_size": {"longest_edge": SIDE},
    },
    "llava": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
    },
    "internvl": {
        "image_processor_type": "GotOcr2ImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "crop_to_patches": True,
        "min_patches": 1,
        "max_patches": 4,
    },
}


def _tokenizer(kind: str, folder: Path) -> None:
    """Words w6 to w189 with the numbers in their names, and the marks of a kind behind them; or, of
    kinds that transformers has such tokenizers of, bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = ["<pad>", "<s>", "</s>", "\n", "User:", "Assistant:", *(f"w{n}" for n in range(6, 190))]
    marks = [*MARKS[kind], ENDS]
    if kind in QWENS:
        known[3 : 3 + len(SIGNS)] = pre_tokenizers.ByteLevel(
            False, use_regex=False
        ).pre_tokenize_str(SIGNS)[0][0]
    words = {word: number for number, word in enumerate([*known, *marks])}
    if kind in QWENS:
        tokenizer = Tokenizer(models.BPE(words, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="w6"))
        lines = pre_tokenizers.Split("\n", "isolated")
        apart = pre_tokenizers.Split(" ", "removed")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, apart])
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>")
    whole.add_special_tokens({"additional_special_tokens": marks})
    whole.chat_template = (
        "{% for m in messages %}{{ m.role | capitalize }}:"
        "{% if m.content is string %}{{ ' ' + m.content }}"
        "{% else %}{% for p in m.content %}"
        "{% if p.type == 'image' %}" + ASKS[kind] + "{% else %}{{ ' ' + p.text }}{% endif %}"
        "{% endfor %}{% endif %}" + ENDS + "\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    )
    whole.save_pretrained(folder)
    if kind == "gemma3":  # its processor asks for them by name
        file = folder / "tokenizer_config.json"
        named = zip(("image_token", "boi_token", "eoi_token"), MARKS[kind], strict=True)
        file.write_text(json.dumps({**json.loads(file.read_text()), **dict(named)}))


def saved(kind: str, folder: Path) -> Path:
    """The folder, with a model of that kind in it, its tokenizer, and how pictures are made."""
    network(kind).save_pretrained(folder)
    _tokenizer(kind, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[kind]))
    if kind in PIXTRALS:
        told = {"patch_size": PATCH, "spatial_merge_size": 2, "processor_class": "PixtralProcessor"}
        (folder / "processor_config.json").write_text(json.dumps(told))
    return folder


def pictures(count: int, height: int = 40, width: int = 60) -> list[np.ndarray]:
    """Some of made-up scenes, as bytes (rows, columns, 3)."""
    from lepton_compile.numerics import sample_images

    return [*sample_images.pictures(count, height, width)]


class Theirs:
    """A folder's model as transformers runs it, with its own processor of pictures and texts."""

    def __init__(self, kind: str, folder: Path) -> None:
        import transformers

        self.kind = kind
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        self.sees = _sees(kind).from_pretrained(folder)
        how = {"chat_template": self.tokenizer.chat_template}
        if kind in GRIDS:
            return  # their processors ask for torchvision
        if kind == "llava":
            told = {"patch_size": 8, "vision_feature_select_strategy": "default"}
            how |= told | {"num_additional_image_tokens": 1}
            self.reads = transformers.LlavaProcessor(self.sees, self.tokenizer, **how)
        elif kind == "gemma3":
            how |= {"image_seq_length": 4}
            self.reads = transformers.Gemma3Processor(self.sees, self.tokenizer, **how)
        elif kind != "internvl":
            how |= {"image_seq_len": 4}
            self.reads = transformers.Idefics3Processor(self.sees, self.tokenizer, **how)

    def inputs(self, text: str, images: list[Any]) -> dict[str, Any]:
        """Tensors of a text and of the pictures in it."""
        if self.kind == "internvl":
            return self._of_patches(text, images)
        if self.kind in GRIDS:
            return self._of_grids(text, images)
        given = {"text": [text], "images": [images] if images else None}
        if self.kind == "gemma3":
            given["return_mm_token_type_ids"] = True
        return dict(self.reads(**given, return_tensors="pt", add_special_tokens=False))

    def _of_patches(self, text: str, images: list[Any]) -> dict[str, Any]:
        """The same of InternVL, whose processor asks for torchvision: as its code does."""
        import torch

        name, first, last = MARKS[self.kind]
        ids, parts = list[int](), text.split(name)
        seen = [self.sees(image, return_tensors="pt")["pixel_values"] for image in images]
        assert len(parts) == len(seen) + 1
        for part, pixels in zip(parts, [*seen, None], strict=True):
            stands = f"{first}{name * 4 * len(pixels)}{last}" if pixels is not None else ""
            ids += self.tokenizer.encode(part + stands, add_special_tokens=False)
        row = torch.tensor([ids])
        found = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        return found | ({"pixel_values": torch.cat(seen)} if seen else {})

    def _of_grids(self, text: str, images: list[Any]) -> dict[str, Any]:
        """The same of pictures of any size."""
        import torch

        how = {"patch_size": 2 * PATCH} if self.kind in PIXTRALS else {}
        seen = dict(self.sees(images, return_tensors="pt", **how)) if images else {}
        first, *rest = text.split(MARKS[self.kind][0])
        stands = zip(self._stand(seen), rest, strict=True)
        text = first + "".join(map("".join, stands))
        row = torch.tensor([self.tokenizer.encode(text, add_special_tokens=False)])
        told = {"input_ids": row, "attention_mask": torch.ones_like(row), **seen}
        if self.kind in PIXTRALS:
            return told
        return told | {"mm_token_type_ids": (row == TOKEN).to(torch.int64)}

    def _stand(self, seen: dict[str, Any]) -> list[str]:
        """What a processor writes for each picture; of what is seen it takes out what no model
        is given."""
        name, *around = MARKS[self.kind]
        if self.kind in GEMMA4:
            counts = map(int, seen.pop("num_soft_tokens_per_image", ()))
            return [f"{around[0]}{name * count}{around[1]}" for count in counts]
        if self.kind in PIXTRALS:
            sizes = [one // (2 * PATCH) for one in seen.get("image_sizes", ())]
            line, end = around if self.kind == "mistral3" else ("", "")
            return [line.join([name * int(wide)] * int(high)) + end for high, wide in sizes]
        return [name * (int(one.prod()) // 4) for one in seen.get("image_grid_thw", ())]

    def ids(self, text: str, images: list[Any]) -> list[int]:
        return [*map(int, self.inputs(text, images)["input_ids"][0])]

    def tokens(self, text: str, images: list[Any], new: int) -> list[int]:
        """The likeliest next ones."""
        given = self.inputs(text, images)
        made = self.model.generate(**given, max_new_tokens=new, do_sample=False)[0]
        return [*map(int, made[given["input_ids"].shape[1] :])]

    def logits(self, text: str, images: list[Any]) -> np.ndarray:
        """(tokens, vocabulary)."""
        import torch

        with torch.no_grad():
            return np.asarray(self.model(**self.inputs(text, images)).logits[0])


def _sees(kind: str) -> Any:
    import transformers

    names = {"smolvlm": "SmolVLM", "llava": "CLIP", "internvl": "GotOcr2", "gemma3": "Gemma3"}
    names |= {**dict.fromkeys(QWENS, "Qwen2VL"), **dict.fromkeys(GEMMA4, "Gemma4")}
    names |= {**dict.fromkeys(PIXTRALS, "Pixtral"), **dict.fromkeys(GLM, "Glm46V")}
    names["paddleocr_vl"] = "PaddleOCRVL"
    return getattr(transformers, f"{names[kind]}ImageProcessorPil")


@dataclass
class Case:
    """A kind of model in ``source``, and its artifact; ``mark`` stands for a picture in a text."""

    kind: str
    source: Path
    folder: Path
    theirs: Theirs
    mark: str


def made(kind: str, root: Path, **how: Any) -> Case:
    """Both in folders below ``root``; ``how`` is what a build is told besides."""
    import lepton_compile as lc

    source = saved(kind, root / "model")
    built = lc.build(model=str(source), output=root / "out", tactics="default", **how)
    return Case(kind, source, built.path, Theirs(kind, source), ASKS[kind])


QUANTIZED: dict[str, tuple[Any, float]] = {
    "int8": ("int8", 0.99),
    "int4": ("int4", 0.8),
    "awq": ({"algorithm": "awq", "bits": 4, "group": 32}, 0.8),
    "gptq": ({"algorithm": "gptq", "bits": 4, "group": 32}, 0.8),
}
"""What a model is built with, and the least cosine of its logits."""


def check_quantized(source: Path, quantize: Any, least: float, mark: str, out: Path) -> None:
    """Build a model in fewer bits: it is about what it was, and still looks at pictures."""
    import lepton_compile as lc

    how: dict[str, Any] = {"tactics": "default", "gates": {"perplexity": None}}
    built = lc.build(model=str(source), quantize=quantize, output=out, **how)
    verified = json.loads((built.path / "report.json").read_text())["verify"]
    assert 1 > verified["cosine"] > least
    assert verified["decode_tokens"] > 0
    with lc.load(built.path, threads=1) as model:
        rows = model.generate([f"{mark} w7"] * 2, images=[[p] for p in pictures(2)])
        assert rows[0].tokens != rows[1].tokens
