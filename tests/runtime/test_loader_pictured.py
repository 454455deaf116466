"""What is held of prompts with pictures from one call to the next; and manifests that lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lepton_compile as lc
from lepton_compile.runtime.loader import Model
from lepton_compile.runtime.loader_pictured import Pictured, pictured
from lepton_compile.runtime.loader_seer import Seer
from lepton_compile.runtime.loader_shared_cache import SharedCache
from tests.pictured import SIDE, TOKEN, Case, pictures
from tests.runtime.test_emit import imported
from tests.runtime.test_loader_forged import edited, outcomes

ROOM = 320
EXACT = 1e-5  # of logits, by kernels of onnxruntime that take other numbers of rows
TILES = 5  # a square is cut into four, and is seen as a whole
# Tokens that stand for it, with marks and ends of lines: the four of each tile begin at these.
OF_ONE, BEGIN = 34, (2, 8, 15, 21, 29)


@pytest.fixture(scope="module")
def model(smolvlm: Case) -> Iterator[Model]:
    with lc.load(smolvlm.folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def squares() -> list[np.ndarray]:
    """Pictures that need not be resized; the last one has the first one's tiles but for the corner
    below and right, and the whole."""
    found = pictures(3, 2 * SIDE, 2 * SIDE)
    other = found[0].copy()
    other[SIDE:, SIDE:] = found[1][SIDE:, SIDE:]
    return [*found, other]


def words(many: int, seed: int = 0) -> str:
    return " ".join(f"w{n}" for n in np.random.default_rng(seed).integers(6, 190, many))


class Watched:
    """A model that notes how many tokens its decoder reads for prompts, and tiles its encoder."""

    def __init__(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        self.model, self.read, self.seen = model, list[int](), 0
        run, see = SharedCache._run, Seer.see

        def noted(cache: Any, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            self.read.append(ids.shape[1])
            return run(cache, ids, mask)

        def looked(seer: Any, pixels: Any) -> np.ndarray:
            self.seen += len(pixels)
            return see(seer, pixels)

        monkeypatch.setattr(SharedCache, "_run", noted)
        monkeypatch.setattr(Seer, "see", looked)
        model.forget()

    def __call__(self, text: str, *images: np.ndarray) -> tuple[int, int, int]:
        """Tokens of a prompt, those that were read, and tiles that were seen; the answer is that of
        a cache that holds nothing."""
        self.read.clear()
        self.seen = 0
        row = self.model.generate(text, images=images, max_new_tokens=4)
        found = len(row.ids), self.read[0], self.seen
        held, self.model.spare = self.model.spare, []
        assert row.tokens == self.model.generate(text, images=images, max_new_tokens=4).tokens
        assert (self.read[4], self.seen - found[2]) == (found[0], TILES * len(images))
        self.model.forget()
        self.model.spare = held
        return found


@pytest.fixture
def watched(model: Model, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(model, monkeypatch)


def test_the_same_picture_is_not_seen_again(watched: Watched, squares: list[np.ndarray]) -> None:
    before, text = words(20, seed=1), words(20)
    length = 20 + OF_ONE + 20
    assert watched(f"{before} <image> {text}", squares[0]) == (length, length, TILES)
    longer = f"{before} <image> {text} {words(30)}"
    assert watched(longer, squares[0]) == (length + 30, length + 30 - 64, 0)
    assert watched(longer, squares[0].copy()) == (length + 30, length + 30 - 80, 0)
    assert watched(f"{before} {words(40)}") == (60, 60 - 16, 0)
    assert watched(f"{before} <image> {text}", squares[0]) == (length, length - 16, TILES)


def test_more_room_loses_no_picture(watched: Watched, squares: list[np.ndarray]) -> None:
    text = f"<image> {words(40)}"
    assert watched(text, squares[0])[1:] == (OF_ONE + 40, TILES)
    assert watched.model.spare[0].capacity == 256
    longest = f"{text} {words(200)}"
    assert watched(longest, squares[0]) == (OF_ONE + 240, OF_ONE + 240 - 64, 0)
    assert watched.model.spare[0].capacity == ROOM


def test_another_picture_in_its_place_is_seen(watched: Watched, squares: list[np.ndarray]) -> None:
    before, text = words(20, seed=1), words(20)
    length = 20 + OF_ONE + 20
    assert watched(f"{before} <image> {text}", squares[0])[1:] == (length, TILES)
    # What stands before a picture, in whole strips of 16, is held, and nothing of another.
    assert watched(f"{before} <image> {text}", squares[1]) == (length, length - 16, TILES)
    assert watched(f"<image> {text}", squares[1]) == (OF_ONE + 20, OF_ONE + 20, TILES)
    assert watched(f"<image> {text}", squares[0]) == (OF_ONE + 20, OF_ONE + 20, TILES)


def test_tiles_count_one_by_one(watched: Watched, squares: list[np.ndarray]) -> None:
    """Of a tile whose tokens are not all held the rest is read, and it is seen again for them."""
    text, whole = words(40), OF_ONE + 40
    ids = watched.model.generate(f"<image> {text}", images=squares[:1], max_new_tokens=1).ids
    assert tuple(np.flatnonzero(np.array(ids) == TOKEN)[::4]) == BEGIN
    watched.model.forget()
    assert watched(f"<image> {text}", squares[0])[1:] == (whole, TILES)
    # Another fourth tile: of the third, one token stands before 16.
    assert watched(f"<image> {text}", squares[3])[1:] == (whole - 16, 3)
    # As many tokens are read in any case that of the whole three are held, and one is not.
    assert watched(f"<image> {words(15)}", squares[3])[1:] == (OF_ONE + 15 - 32, 1)
    assert watched(f"<image> {text}", squares[3])[1:] == (whole - 48, 0)


def test_the_second_of_two(watched: Watched, squares: list[np.ndarray]) -> None:
    text = f"<image> {words(10)} <image> {words(20)}"
    whole = 2 * OF_ONE + 30
    assert watched(text, squares[0], squares[1])[1:] == (whole, 2 * TILES)
    assert watched(text, squares[0], squares[2])[1:] == (whole - 32, 1 + TILES)
    assert watched(text, squares[0], squares[2])[1:] == (whole - 80, 0)
    assert watched(text, squares[1], squares[2])[1:] == (whole, 2 * TILES)
    assert watched(f"<image> {words(40)}", squares[1])[1:] == (OF_ONE + 40 - 32, 1)


def prompts_of(model: Model, rows: list[tuple[list[int], int]], seen: list[np.ndarray]) -> Any:
    """Prompts of pictures by number, each behind two words, and of so many words in the end."""
    texts = [" ".join(["w9 w8 <image>"] * len(own)) + f" {words(n)}" for own, n in rows]
    return pictured(model, texts, True, [[seen[n] for n in own] for own, _ in rows], chat=False)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    turns=st.lists(
        st.lists(
            st.tuples(st.lists(st.integers(0, 3), max_size=2), st.integers(1, 60)),
            min_size=1,
            max_size=3,
        ),
        min_size=2,
        max_size=4,
    ),
    steps=st.integers(0, 2),
)
def test_logits_are_the_same(
    model: Model, squares: list[np.ndarray], turns: list[Any], steps: int
) -> None:
    """Of prompts alone and of batches in turn, with pictures and without."""
    cache = model.new_cache(3, ROOM)
    for rows in turns:
        fresh, prompts = model.new_cache(len(rows), ROOM), prompts_of(model, rows, squares)
        found, wanted = cache.start(prompts), fresh.start(prompts)
        assert np.abs(found - wanted).max() <= EXACT
        for _ in range(steps):
            tokens, alive = [*map(int, wanted.argmax(-1))], [True] * len(rows)
            found, wanted = cache.step(tokens, alive), fresh.step(tokens, alive)
            assert np.abs(found - wanted).max() <= EXACT
        fresh.close()
    cache.close()


def test_threads_do_not_see_each_others_pictures(
    smolvlm: Case, model: Model, squares: list[np.ndarray]
) -> None:
    asked = [(f"<image> {words(20)}", [one]) for one in squares] + [(words(30), [])]
    asked += [(f"{text} {words(9)}", images) for text, images in asked]

    def answer(number: int) -> list[int]:
        text, images = asked[number % len(asked)]
        return model.generate(text, images=images, max_new_tokens=8).tokens

    alone = [smolvlm.theirs.tokens(text, images, 8) for text, images in asked]
    assert len({*map(tuple, alone)}) > len(squares)
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(answer, range(8 * len(asked)))]
    assert found == alone * 8


def test_streams_in_turn_have_pictures_of_their_own(
    smolvlm: Case, model: Model, squares: list[np.ndarray]
) -> None:
    text = f"<image> {words(20)}"
    how: dict[str, Any] = {"max_new_tokens": 8, "stream": True}
    streams = [model.generate(text, images=[one], **how) for one in squares[:2]]
    said = [*zip(*streams, strict=True)]
    assert len(said) == 8
    for one, pieces in zip(squares[:2], zip(*said, strict=True), strict=True):
        tokens = smolvlm.theirs.tokens(text, [one], 8)
        assert "".join(pieces).split() == smolvlm.theirs.tokenizer.convert_ids_to_tokens(tokens)


def test_a_caller_cannot_change_what_is_held(model: Model, squares: list[np.ndarray]) -> None:
    """Pixels and ids that come back are the caller's own."""
    text = f"<image> {words(20)}"
    row = model.generate(text, images=squares[:1], max_new_tokens=4)
    assert isinstance(row.ids, Pictured)
    row.ids.names.clear()
    row.ids.pixels.clear()
    again = model.generate(text, images=squares[1:2], max_new_tokens=4)
    model.forget()
    assert again.tokens == model.generate(text, images=squares[1:2], max_new_tokens=4).tokens


@pytest.mark.parametrize(
    ("under", "least"),
    [
        (("generation", "pictures"), 70),
        (("image",), 100),
        (("engines", 0, "encoder"), 8),
        (("inputs",), 50),
        (("ranges",), 50),
    ],
)
def test_no_edit_of_a_manifest_ends_in_anything_but_a_refusal(
    under: tuple[Any, ...], least: int, smolvlm: Case, tmp_path: Path
) -> None:
    forged = Path(shutil.copytree(smolvlm.folder, tmp_path / "forged"))
    refused, _ = outcomes(forged, imported(forged / "loader.py"), under)
    assert refused > least


PICTURES = ("generation", "pictures")
ENCODER = ("engines", 0, "encoder")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (PICTURES, None, r"manifest\.generation\.pictures cannot be None"),
        ((*PICTURES, "tokens"), 0, r"0 of token 190 cannot stand for a picture"),
        ((*PICTURES, "tokens"), 321, r"321 of token 190 cannot stand for a picture"),
        ((*PICTURES, "placeholder"), 200, r"4 of token 200 cannot stand for a picture"),
        ((*PICTURES, "line"), None, r"generation\.pictures\.line cannot be None"),
        ((*PICTURES, "one"), 5, r"generation\.pictures\.one cannot be 5"),
        (ENCODER, None, r"manifest\.engines\[0\]\.encoder cannot be None"),
        (ENCODER, "../out/engines/ort-cpu/encoder.onnx", "without giving their digests"),
        (("image",), "x", r"manifest\.image cannot be 'x'"),
        (("image", "tiles", "edge"), 9000, r"image\.tiles cannot be"),
        (("image", "size"), [16, 16], r"image\.tiles cannot be .* of \[16, 16\]"),
        (("image", "mean"), 5, r"manifest\.image\.mean cannot be 5"),
        (("inputs", 0, "shape"), ["images", 3, "rows", 32], "encoder_pixel_values has the shapes"),
        (("inputs", 0, "name"), "pixels", r"encoder_pixel_values has the shapes \[\]"),
    ],
)
def test_what_is_refused_at_once(
    path: tuple[Any, ...], value: Any, said: str, smolvlm: Case, tmp_path: Path
) -> None:
    loader, forged = forge(smolvlm, tmp_path, path, value)
    with pytest.raises(loader.LoaderError, match=said):
        loader.load(forged, threads=1)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((*PICTURES, "tokens"), 3, "an image stands in another number of places"),
        ((*PICTURES, "tokens"), 5, "an image stands in another number of places"),
        ((*PICTURES, "tile"), "w7", "times, and 1 images take 20, 4 for each"),
        ((*PICTURES, "whole"), "<image><image>", "times, and 1 images take 20, 4 for each"),
        (("image", "resample"), "best", "this image does not become what the model takes"),
        (("image", "std"), [1.0, 2.0], "this image does not become what the model takes"),
    ],
)
def test_what_is_refused_where_a_picture_comes(
    path: tuple[Any, ...], value: Any, said: str, smolvlm: Case, tmp_path: Path
) -> None:
    loader, forged = forge(smolvlm, tmp_path, path, value)
    with loader.load(forged, threads=1) as model:
        assert model.generate("w7 w8", max_new_tokens=2).tokens
        with pytest.raises(loader.LoaderError, match=said):
            model.generate("<image> w7", images=pictures(1), max_new_tokens=2)


def forge(case: Case, folder: Path, path: tuple[Any, ...], value: Any) -> tuple[Any, Path]:
    """The loader of a copy of an artifact whose manifest was edited, and the copy."""
    forged = Path(shutil.copytree(case.folder, folder / "forged"))
    file = forged / "manifest.json"
    file.write_text(json.dumps(edited(json.loads(file.read_text()), path, value)))
    return imported(forged / "loader.py"), forged
