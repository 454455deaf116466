"""Every model of the zoo that sees pictures and writes: the unlowered graph, whole and in two
parts, equals PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import GotOcr2ImageProcessor, Idefics3ImageProcessor

from lepton_compile.engines.encoder_part import is_encoder_decoder, split
from lepton_compile.engines.model_file import flatten
from lepton_compile.export import ExportedModel, resolve
from lepton_compile.export.image_text import PICTURES
from lepton_compile.export.reference import load_reference

from .harness import FP32, compiled, empty_cache, relative_error, run, save, session_of
from .zoo_pictured import BEHIND, PICTURED, PLACEHOLDER

TASK = "image-text-to-text"
COUNTS = (2, 1)
"""Pictures of each row of a batch."""
WORDS = 5


@dataclass
class Case:
    model: Any
    exported: ExportedModel
    session: ort.InferenceSession

    @cached_property
    def parts(self) -> tuple[ort.InferenceSession, ort.InferenceSession]:
        """Sessions of the tower and of the decoder."""
        model = self.exported.model.clone()
        flatten(model)
        assert is_encoder_decoder(model)
        tower, decoder = split(model)
        shared = tower.graph.initializers.keys() & decoder.graph.initializers.keys()
        assert not shared
        return session_of(tower), session_of(decoder)

    @cached_property
    def pixels(self) -> np.ndarray:
        (shape,) = (i.shape for i in self.session.get_inputs() if i.name == PICTURES)
        return np.random.default_rng(2).standard_normal((sum(COUNTS), *shape[1:])).astype("f")

    def batch(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        """(ids, mask) of two rows that are padded on one ``side``: the first has two pictures, one
        right behind the other, the second has one and begins with it."""
        picture = [self.exported.placeholder] * self.exported.picture_tokens
        words = [*map(int, np.random.default_rng(1).integers(10, 98, 3 * WORDS))]
        texts = [words[:2] + 2 * picture + words[2:WORDS], picture + words[-WORDS:]]
        longest = max(map(len, texts))
        ids, mask = np.zeros((2, 2, longest), np.int64)
        for row, text in enumerate(texts):
            here = slice(longest - len(text), None) if side == "left" else slice(len(text))
            ids[row, here], mask[row, here] = text, 1
        return ids, mask

    def reference(self, ids: np.ndarray, mask: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
        """PyTorch's logits of ids, in whose rows the first ``counts`` pictures stand."""
        given = {"input_ids": ids, "attention_mask": mask}
        given["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)
        known: dict[str, Any] = {name: torch.from_numpy(value) for name, value in given.items()}
        pixels = torch.from_numpy(self.pixels[: sum(counts)])
        with torch.no_grad():
            if sum(counts):
                known["pixel_values"] = self._given(pixels, counts)
            if self.mutual:
                known["token_type_ids"] = known["input_ids"] == self.exported.placeholder
            return np.asarray(self.model(**known, use_cache=False).logits.numpy())

    @property
    def mutual(self) -> bool:
        """Whether the tokens of a picture see each other."""
        return bool(self.model.config.model_type == "gemma3")

    def _given(self, pixels: torch.Tensor, counts: tuple[int, ...]) -> torch.Tensor:
        """As transformers takes them: in a row, or as many of each text, of which some are zero."""
        if self.model.config.model_type not in ("idefics3", "smolvlm"):
            return pixels
        made = torch.zeros((len(counts), max(counts), *pixels.shape[1:]))
        for row, own in enumerate(torch.split(pixels, [*counts])):
            made[row, : len(own)] = own
        return made


@pytest.fixture(scope="module", params=list(PICTURED))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    save(PICTURED[request.param][0], TASK, folder)
    model = load_reference(resolve(str(folder), folder), TASK)
    exported, session = compiled(folder, TASK)
    assert exported.picture_tokens == PICTURED[request.param][1]
    return Case(model, exported, session)


def test_captured_as_expected(case: Case) -> None:
    assert (case.exported.how, len(case.exported.caches)) == ("stamped", 2)
    assert case.exported.placeholder in (PLACEHOLDER, BEHIND)
    names = [i.name for i in case.session.get_inputs()]
    past = [f"past_key_values.{i}.{k}" for i in range(2) for k in ("key", "value")]
    assert names == [PICTURES, "input_ids", "attention_mask", *past]
    assert [i.name for i in case.session.get_overridable_initializers()] == ["logits_to_keep"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_all_positions_at_once(case: Case, side: str) -> None:
    ids, mask = case.batch(side)
    expected, real = case.reference(ids, mask, COUNTS), mask.astype(bool)
    feeds = {PICTURES: case.pixels, "input_ids": ids, "attention_mask": mask}
    feeds |= empty_cache(case.session, 2)
    found = run(case.session, feeds)["logits"]
    assert relative_error(found[real], expected[real]) <= FP32
    last = run(case.session, {**feeds, "logits_to_keep": np.array(2)})["logits"]
    assert last.shape[1] == 2
    assert relative_error(last[real[:, -2:]], expected[:, -2:][real[:, -2:]]) <= FP32


def test_two_parts_token_by_token(case: Case) -> None:
    """The tower once for each picture, the decoder up to within the last one, or behind it where
    its tokens see each other, then a token at a time."""
    tower, decoder = case.parts
    ids, mask = case.batch("left")
    expected = case.reference(ids, mask, COUNTS)
    each = (run(tower, {PICTURES: one[None]}).values() for one in case.pixels)
    seen = np.concatenate([rows for (rows,) in each])
    assert seen.shape[0] == len(case.pixels) * case.exported.picture_tokens
    first = ids.shape[1] - (2 if case.mutual else WORDS)
    steps = [first - 1, *range(first, ids.shape[1] + 1)]
    here = ids == case.exported.placeholder
    for (start, stop), logits in _steps(decoder, ids, mask, steps, _of_each(seen, here, steps)):
        real = mask[:, start:stop].astype(bool)
        assert relative_error(logits[real], expected[:, start:stop][real]) <= FP32


def _of_each(seen: np.ndarray, here: np.ndarray, steps: list[int]) -> Iterator[np.ndarray]:
    """What a decoder is given of pictures at each step: those rows that stand there."""
    number = np.cumsum(here).reshape(here.shape) - 1
    for start, stop in zip([0, *steps], steps, strict=False):
        rows = number[:, start:stop][here[:, start:stop]]
        yield seen[rows] if len(rows) else np.zeros((1, seen.shape[1]), np.float32)


def _steps(
    decoder: ort.InferenceSession,
    ids: np.ndarray,
    mask: np.ndarray,
    steps: list[int],
    seen: Iterator[np.ndarray],
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """(start, stop) of each step, and its logits; each has the cache of the one before."""
    past, start = empty_cache(decoder, len(ids)), 0
    own = {"input_ids", "attention_mask", *past}
    (rows,) = {i.name for i in decoder.get_inputs()} - own
    for stop, given in zip(steps, seen, strict=True):
        feeds = {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], rows: given}
        found = run(decoder, {**feeds, **past})
        yield (start, stop), found.pop("logits")
        past = {name.replace("present", "past_key_values"): v for name, v in found.items()}
        start = stop


def test_a_text_without_pictures(case: Case) -> None:
    ids = np.random.default_rng(3).integers(10, 98, (2, WORDS + 9))
    mask = np.ones_like(ids)
    expected = case.reference(ids, mask, (0, 0))
    steps = [WORDS, ids.shape[1]]
    nothing = _of_each(np.zeros((0, 32), np.float32), ids < 0, steps)
    for (start, stop), logits in _steps(case.parts[1], ids, mask, steps, nothing):
        assert relative_error(logits, expected[:, start:stop]) <= FP32


@pytest.mark.parametrize(
    ("kind", "maker", "count"),
    [
        (
            "idefics3",
            Idefics3ImageProcessor(size={"longest_edge": 120}, max_image_size={"longest_edge": 60}),
            9,
        ),
        ("internvl", GotOcr2ImageProcessor(size={"height": 48, "width": 48}), 9),
    ],
)
def test_tiles_of_another_size_than_the_tower_was_made_for(
    kind: str, maker: Any, count: int, tmp_path: Path
) -> None:
    save(PICTURED[kind][0], TASK, tmp_path)
    maker.save_pretrained(tmp_path)
    model = load_reference(resolve(str(tmp_path), tmp_path), TASK)
    case = Case(model, *compiled(tmp_path, TASK))
    assert case.exported.picture_tokens == count
    test_all_positions_at_once(case, "left")
