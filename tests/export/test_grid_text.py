"""Every model of the zoo that sees pictures of any size and writes: the unlowered graph, whole and
in two parts, equals PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from lepton_compile.engines.encoder_part import split
from lepton_compile.engines.model_file import flatten
from lepton_compile.export import ExportedModel, resolve
from lepton_compile.export.grid_text import OFFSETS, PLACES
from lepton_compile.export.image_text import PICTURES
from lepton_compile.export.reference import load_reference
from lepton_compile.numerics.pictured_reference import with_pictures
from lepton_compile.runtime.loader_axes import offsets
from lepton_compile.runtime.loader_grids import GridSeer, patches

from .harness import FP32, compiled, empty_cache, relative_error, run, save, session_of
from .zoo_pictured import PLACEHOLDER, SIZED

TASK = "image-text-to-text"
SIZES = ((5, 4), (1, 7), (2, 2), (3, 3))
"""Rows and columns of tokens, whole windows among them; those of 3 x 3 are one."""
WORDS = 5


@dataclass
class Case:
    name: str
    model: Any
    exported: ExportedModel
    session: ort.InferenceSession

    @cached_property
    def parts(self) -> tuple[ort.InferenceSession, ort.InferenceSession]:
        """Sessions of the tower and of the decoder."""
        model = self.exported.model.clone()
        flatten(model)
        tower, decoder = split(model)
        return session_of(tower), session_of(decoder)

    @property
    def told(self) -> dict[str, Any]:
        assert self.exported.grid is not None
        return {"placeholder": PLACEHOLDER, "grid": asdict(self.exported.grid)}

    def picture(self, rows: int, columns: int, seed: int = 0) -> np.ndarray:
        unit = self.told["grid"]["patch"] * self.told["grid"]["merge"]
        shape = (3, rows * unit, columns * unit)
        return np.random.default_rng(seed).standard_normal(shape).astype("f")

    @property
    def axes(self) -> bool:
        """Whether positions have rows and columns."""
        return OFFSETS in {value.name for value in self.session.get_inputs()}

    def apart(self, rows: list[list[int]], pictures: list[list[np.ndarray]]) -> dict[str, Any]:
        """Offsets of rows of ids, (3, rows, tokens), where the model takes them."""
        each = zip(rows, pictures, strict=True)
        found = [offsets(ids, seen, self.told)[:, :-1] for ids, seen in each]
        return {OFFSETS: np.stack(found, 1)} if self.axes else {}

    def ids(self, *sizes: tuple[int, int]) -> list[int]:
        """Words, and pictures between them."""
        words = [*map(int, np.random.default_rng(1).integers(10, 98, WORDS * (len(sizes) + 1)))]
        found = words[:WORDS]
        for place, (rows, columns) in enumerate(sizes, 1):
            here = words[place * WORDS : (place + 1) * WORDS]
            found += [PLACEHOLDER] * (rows * columns) + here
        return found

    def reference(self, ids: list[int], pictures: list[np.ndarray]) -> np.ndarray:
        """PyTorch's logits, (tokens, vocabulary)."""
        row = torch.tensor([ids])
        known: dict[str, Any] = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        if pictures:
            known |= with_pictures(self.model, row, [pictures])
        with torch.no_grad():
            return np.asarray(self.model(**known, use_cache=False).logits[0])


@pytest.fixture(scope="module", params=list(SIZED))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    save(SIZED[request.param][0], TASK, folder)
    model = load_reference(resolve(str(folder), folder), TASK)
    return Case(request.param, model, *compiled(folder, TASK))


def test_captured_as_expected(case: Case) -> None:
    exported = case.exported
    assert (exported.how, exported.kinds) == ("stamped", SIZED[case.name][1])
    assert (exported.placeholder, exported.picture_tokens) == (PLACEHOLDER, 0)
    names = [i.name for i in case.session.get_inputs() if not i.name.startswith("past")]
    axes = [OFFSETS] if case.name.startswith(("qwen", "paddle", "glm")) else []
    assert names == [PICTURES, PLACES, "input_ids", "attention_mask", *axes]
    assert [i.name for i in case.session.get_overridable_initializers()] == ["logits_to_keep"]
    tower, decoder = case.parts
    assert [i.name for i in tower.get_inputs()] == [PICTURES, PLACES]
    (seen,) = (o.name for o in tower.get_outputs())
    assert seen in {i.name for i in decoder.get_inputs()}


def test_one_picture_at_once(case: Case) -> None:
    """The whole graph, whose tower has tokens in an order of its own where there are windows: it
    is that of the text in one window alone, else they are put in order between the parts."""
    for size in SIZES if not case.told["grid"]["window"] else SIZES[-1:]:
        ids, picture = case.ids(size), case.picture(*size)
        pixels, places = patches(picture, case.told["grid"])
        feeds = {
            PICTURES: pixels,
            PLACES: places,
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, len(ids)), np.int64),
            **case.apart([ids], [[picture]]),
            **empty_cache(case.session, 1),
        }
        found = run(case.session, feeds)["logits"][0]
        assert relative_error(found, case.reference(ids, [picture])) <= FP32


def test_two_parts_token_by_token(case: Case) -> None:
    """The tower once for each of several pictures, the decoder up to within one of them, then a
    token at a time."""
    tower, decoder = case.parts
    sizes = SIZES[:2]
    ids = case.ids(*sizes)
    pictures = [case.picture(*size, seed=number) for number, size in enumerate(sizes)]
    expected = case.reference(ids, pictures)
    apart = case.apart([ids], [pictures])
    seer = GridSeer(tower, decoder, case.told)
    seen = seer.see(pictures)
    assert len(seen) == ids.count(PLACEHOLDER)
    cache = empty_cache(decoder, 1)
    first = WORDS + sizes[0][0] * sizes[0][1] - 3
    ends = [0, *range(first, len(ids) + 1)]
    if "mutual" in case.name:  # of which pictures are read as a whole
        ends = [n for n in ends if PLACEHOLDER not in ids[n : n + 1] or ids[n - 1] != PLACEHOLDER]
    for start, stop in pairwise(ends):
        here = slice(ids[:start].count(PLACEHOLDER), ids[:stop].count(PLACEHOLDER))
        feeds = {
            "input_ids": np.array([ids[start:stop]]),
            "attention_mask": np.ones((1, stop), np.int64),
            **{name: array[:, :, start:stop] for name, array in apart.items()},
            seer.name: seen[here],
            **cache,
        }
        found = run(decoder, feeds)
        assert relative_error(found["logits"][0], expected[start:stop]) <= FP32
        cache = {
            name.replace("present.", "past_key_values.", 1).replace("present_", "past_", 1): value
            for name, value in found.items()
            if name.startswith("present")
        }


def test_a_batch_of_which_one_row_has_a_picture(case: Case) -> None:
    """Rows of a text and of a picture, padded on either side where there are no states."""
    tower, decoder = case.parts
    size = SIZES[0]
    ids, picture = case.ids(size), case.picture(*size)
    text = case.ids()
    expected = [case.reference(ids, [picture]), case.reference(text, [])]
    seer = GridSeer(tower, decoder, case.told)
    width, more = len(ids), len(ids) - len(text)
    for left in (True, False) if not case.exported.states else (False,):
        pad = [3] * more
        rows = [ids, pad + text if left else text + pad]
        kept = [0] * more + [1] * len(text) if left else [1] * len(text) + [0] * more
        feeds = {
            "input_ids": np.array(rows),
            "attention_mask": np.array([[1] * width, kept]),
            **case.apart(rows, [[picture], []]),
            seer.name: seer.see([picture]),
            **empty_cache(decoder, 2),
        }
        found = run(decoder, feeds)["logits"]
        assert relative_error(found[0], expected[0]) <= FP32
        assert relative_error(found[1][np.array(kept) == 1], expected[1]) <= FP32
