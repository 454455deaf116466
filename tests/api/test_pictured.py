"""Models that see pictures and write: the ids and the answers of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

import lepton_compile as lc
from lepton_compile.runtime import LoaderError
from lepton_compile.runtime.loader import Model
from tests.export.harness import FP32, relative_error
from tests.pictured import GRIDS, KINDS, TOKEN, Case, Theirs, made, pictures, saved

NEW = 8
# fp32 in another order of additions, relative to the range of the logits.
TOLERANCE = 1e-5
# Beside each other, under each other, in one tile; and a thin one.
SHAPES = ((40, 60), (60, 40), (32, 32), (7, 90))
TEXTS = (("{0} w7 w8 w9", 1), ("w20 {0} w7 {0} w8 w9", 2), ("w20 w21 w22", 0), ("w9{0}{0}{0}", 3))


@pytest.fixture(scope="module", params=KINDS)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, smolvlm: Case
) -> Case:
    if request.param == smolvlm.kind:
        return smolvlm
    return made(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def seen() -> list[Image.Image]:
    found = zip(SHAPES, pictures(len(SHAPES)), strict=True)
    return [Image.fromarray(picture).resize(shape[::-1]) for shape, picture in found]


def test_it_writes_what_transformers_writes(case: Case, seen: list[Image.Image]) -> None:
    answers = set()
    with lc.load(case.folder, threads=1) as model:
        for first in range(len(seen)):
            for form, count in TEXTS:
                text, images = form.format(case.mark), (seen[first:] + seen[:first])[:count]
                row = model.generate(text, images=images, max_new_tokens=NEW)
                assert row.ids == case.theirs.ids(text, images)
                assert row.tokens == case.theirs.tokens(text, images, NEW)
                answers.add((form, *row.tokens))
    assert len(answers) > 2 * len(seen)  # what is seen counts


def test_a_batch_has_pictures_of_its_own(case: Case, seen: list[Image.Image]) -> None:
    texts = [f"{case.mark} w7 w8", f"w20 {case.mark} w7", "w30 w31", f"{case.mark} w7 w8"]
    images: list[Any] = [seen[:1], seen[1:2], None, seen[3:]]
    expected = [
        case.theirs.tokens(text, own or [], NEW) for text, own in zip(texts, images, strict=True)
    ]
    with lc.load(case.folder, threads=1) as model:
        for _ in range(2):
            rows = model.generate(texts, images=images, max_new_tokens=NEW)
            assert [row.tokens for row in rows] == expected
        same = model.generate(texts[:1] * 2, images=[seen[:1], seen[1:2]], max_new_tokens=NEW)
        assert [row.tokens for row in same] == [
            case.theirs.tokens(texts[0], [one], NEW) for one in seen[:2]
        ]


def said(*parts: Any) -> list[dict[str, Any]]:
    """The content of a message: texts, and images for all else."""
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", **({} if part is None else {"image": part})}
        for part in parts
    ]


def test_a_chat(case: Case, seen: list[Image.Image]) -> None:
    def answer(messages: list[dict[str, Any]], images: list[Any]) -> tuple[list[int], list[int]]:
        template = case.theirs.tokenizer.apply_chat_template
        text = template(messages, tokenize=False, add_generation_prompt=True)
        return case.theirs.ids(text, images), case.theirs.tokens(text, images, NEW)

    new = {"role": "user", "content": said(None, "w40 w41")}
    before = [
        {"role": "user", "content": said(None, "w30")},
        {"role": "assistant", "content": "w9"},
    ]
    held = [{"role": "user", "content": said(seen[1], "w30")}, before[1]]
    plain = {"role": "user", "content": said("w40 w41")}
    brought = [*held, {"role": "user", "content": said(seen[0], "w40 w41")}]
    with lc.load(case.folder, threads=1) as model:

        def ours(prompt: Any, images: Any, chat: Any) -> tuple[list[int], list[int]]:
            row = model.generate(prompt, images=images, chat=chat, max_new_tokens=NEW)
            return row.ids, row.tokens

        for chat in (True, {}, {"tools": None}):
            assert ours("w40 w41", seen[:1], chat) == answer([new], seen[:1])
        assert ours("w40 w41", None, True) == answer([plain], [])
        # Of those that came before, all are given, or messages bring them.
        assert ours("w40 w41", seen[1::-1], before) == answer([*before, new], seen[1::-1])
        assert ours("w40 w41", None, held) == answer([*before, plain], seen[1:2])
        assert ours(brought, None, False) == answer([*before, new], seen[1::-1])
        assert ours([*before, new], seen[1::-1], True) == answer([*before, new], seen[1::-1])
        assert ours([brought[-1]], None, held) == answer([*before, new], seen[1::-1])


@pytest.mark.parametrize("front", ["", "{{ bos_token }}"])
def test_a_chat_begins_as_a_processor_has_it_begin(
    front: str, seen: list[Image.Image], tmp_path: Path
) -> None:
    """It puts special tokens in front, unlike a tokenizer, where the template has none."""
    source = saved("llava", tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    begins = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    tokenizer.post_processor = begins
    tokenizer.save(str(source / "tokenizer.json"))
    template = source / "chat_template.jinja"
    template.write_text(front + template.read_text())
    out = lc.build(model=str(source), output=tmp_path / "out", tactics="default", verify=False)
    talk = [{"role": "user", "content": said(seen[0], "w40")}]
    how = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    wanted = [*Theirs("llava", source).reads.apply_chat_template(talk, **how)["input_ids"][0]]
    assert (wanted[0], wanted.count(1)) == (1, 1)
    with lc.load(out.path, threads=1) as model:
        row = model.generate("w40", images=seen[:1], chat=True, max_new_tokens=1)
        assert row.ids == wanted
        assert model.generate("w40", max_new_tokens=1).ids == [1, 40]


def test_ids_have_all_places_of_a_picture(case: Case, seen: list[Image.Image]) -> None:
    with lc.load(case.folder, threads=1) as model:
        row = model.generate(f"w9 {case.mark} w7", images=seen[:1], max_new_tokens=NEW)
        for ids in ([*row.ids], np.array(row.ids), row.ids):
            found = model.generate(ids, images=seen[:1], max_new_tokens=NEW)
            assert (found.ids, found.tokens) == (row.ids, row.tokens)
        with pytest.raises(LoaderError, match=r"has token \d+ 1 times, and 1 images take \d+"):
            model.generate([9, TOKEN, 7], images=seen[:1])


def test_arrays_in_and_out(case: Case, seen: list[Image.Image]) -> None:
    (check_one_row if case.kind in GRIDS else check_rows)(case, seen)


def check_one_row(case: Case, seen: list[Image.Image]) -> None:
    """A row with one picture, of those that are of any size, and one without."""
    with lc.load(case.folder, threads=1) as model:
        for text, images in ((f"w20 {case.mark} w7", seen[1:2]), ("w20 w21 w22", [])):
            right, given = case.theirs.logits(text, images), model.prepared(text, images)
            assert given["input_ids"].tolist() == [case.theirs.ids(text, images)]
            assert relative_error(model.run(given)["logits"][0], right) < FP32
        plain = model.run({"input_ids": given["input_ids"]})["logits"][0]
        assert relative_error(plain, right) < FP32


def check_rows(case: Case, seen: list[Image.Image]) -> None:
    """Pictures through a batch in order, of rows that are padded on either side."""
    text, longer = f"w20 {case.mark} w7", f"{case.mark} w8 w7 w9 w10"
    rows, images = (
        [case.theirs.ids(text, seen[:1]), case.theirs.ids(longer, seen[:1])],
        seen[:1] * 2,
    )
    wanted = [case.theirs.logits(text, seen[:1]), case.theirs.logits(longer, seen[:1])]
    width = max(map(len, rows))
    with lc.load(case.folder, threads=1) as model:
        pixels = model.pixels(images)
        for left in (True, False):
            pads = [[0] * (width - len(row)) for row in rows]
            ids = [pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)]
            ones = [[0] * len(pad) + [1] * len(row) for row, pad in zip(rows, pads, strict=True)]
            mask = ones if left else [row[::-1] for row in ones]
            given = {"input_ids": ids, "attention_mask": mask, "encoder_pixel_values": pixels}
            found = model.run(given)["logits"]
            for made_of, kept, right in zip(found, mask, wanted, strict=True):
                apart = np.abs(made_of[np.array(kept) == 1] - right).max()
                assert apart < TOLERANCE * np.ptp(right)
        right = case.theirs.logits("w20 w21 w22", [])
        plain = model.run({"input_ids": [[20, 21, 22]]})["logits"][0]  # without any
        assert np.abs(plain - right).max() < TOLERANCE * np.ptp(right)
        few = {"input_ids": ids, "encoder_pixel_values": pixels[1:]}
        for wrong in (few, {"input_ids": ids}, {**few, "input_ids": [[5, 6]]}):
            with pytest.raises(LoaderError, match=r"\d tiles take \d+ placeholders each, and the"):
                model.run(wrong)


def test_a_picture_is_an_array_a_file_or_of_pillow(
    smolvlm: Case, seen: list[Image.Image], tmp_path: Path
) -> None:
    file = tmp_path / "seen.png"
    seen[0].save(file)
    every = [seen[0], np.asarray(seen[0]), file, str(file)]
    with lc.load(smolvlm.folder, threads=1) as model:
        rows = [model.generate("<image> w7", images=[one], max_new_tokens=NEW) for one in every]
        assert len({tuple(row.tokens) for row in rows}) == 1
        pieces = model.generate("<image> w7", images=(one for one in every[:1]), stream=True)  # type: ignore[call-overload]
        assert "".join(pieces).startswith(rows[0].text)
        array = np.stack([every[1], every[1]])
        twice = model.generate("<image> w7 <image>", images=array, max_new_tokens=NEW)
        assert twice.ids == smolvlm.theirs.ids("<image> w7 <image>", seen[:1] * 2)


@pytest.fixture(scope="module")
def model(smolvlm: Case) -> Any:
    with lc.load(smolvlm.folder, threads=1) as opened:
        yield opened


ONE = np.zeros((20, 30, 3), np.uint8)
HISTORY = [{"role": "user", "content": said(None)}]


@pytest.mark.parametrize(
    ("prompt", "how", "words"),
    [
        ("<image> w7", {}, "0 images are given, and the prompt has <image> 1 times: write it once"),
        (
            "<image> w7 <image>",
            {"images": [ONE]},
            "1 images are given, and the prompt has <image> 2 times",
        ),
        (
            "<image> w7",
            {"images": [ONE] * 2},
            "2 images are given, and the prompt has <image> 1 times",
        ),
        ("w7", {"images": [ONE]}, "has <image> 0 times: write it once for each, .* chat=True"),
        ("<image> w7", {"images": [ONE], "chat": True}, "the prompt has <image> 2 times"),
        (
            "w7",
            {"images": [], "chat": HISTORY},
            "0 images are given, and the prompt has <image> 1 times",
        ),
        ([TOKEN] * 3, {"images": [ONE]}, "has token 190 3 times, and 1 images take 20, 4 for each"),
        ("<image> w7", {"images": ONE}, "a list of images, not one"),
        ("<image> w7", {"images": Image.fromarray(ONE)}, "a list of images, not one"),
        ("<image> w7", {"images": "seen.png"}, "a list of images, not one"),
        ("<image> w7", {"images": 5}, "a list of images, not 5"),
        ("<image> w7", {"images": [None]}, "an image is uint8 .* not NoneType"),
        ("<image> w7", {"images": [b"PNG"]}, "an image is uint8 .* not bytes"),
        ("<image> w7", {"images": [np.zeros((2, 2))]}, r"not float64 \(2, 2\)"),
        ("<image> w7", {"images": ["no.png"]}, r"no\.png is no image"),
        (["<image>"] * 2, {"images": [[ONE]]}, "images for each of 2 prompts"),
        (["<image>"] * 2, {"images": 5}, "images for each of 2 prompts, not 5"),
        (["<image>"] * 2, {"images": [ONE, ONE]}, "a list of images, not one"),
        ([{"role": "user", "content": said(None)}], {}, r"give images=\[.*key: 'image'"),
        ([{"role": "user", "content": [5, "w7"]}], {}, "the chat template fails"),
        ("w7", {"chat": [{"role": "user", "content": None}]}, "the chat template fails"),
        ("<image>" * 20, {"images": [ONE] * 20}, r"\d+ tokens and 1 new, but the cache holds 320"),
        ("<image> w7", {"images": [ONE], "beams": 2}, "start and beams are of no use"),
    ],
)
def test_calls_that_cannot_be_carried_out(
    prompt: Any, how: dict[str, Any], words: str, model: Model
) -> None:
    with pytest.raises(LoaderError, match=words):
        model.generate(prompt, **how)


def test_a_message_without_content_is_no_picture(model: Model) -> None:
    before = [{"role": "assistant"}, {"role": "user", "content": said(ONE, "w5")}]
    row = model.generate("w7", chat=before, max_new_tokens=2)
    assert len(row.tokens) == 2


def test_marks_in_a_text_are_those_of_transformers(smolvlm: Case, model: Model) -> None:
    """A processor takes what a user writes for its own marks; so do we, and nothing breaks."""
    marks = "<fake_token_around_image> w7 <row_1_col_1> <global-img>"
    image = Image.fromarray(ONE)
    for text, images in ((marks, []), (f"{marks} <image> w8 {marks}", [image])):
        row = model.generate(text, images=images, max_new_tokens=NEW)
        assert row.ids == smolvlm.theirs.ids(text, images)
        assert row.tokens == smolvlm.theirs.tokens(text, images, NEW)


def test_messages_name_an_image_as_templates_do(
    smolvlm: Case, seen: list[Image.Image], model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "seen.png"
    seen[0].save(file)
    parts = [{"image": seen[0], "path": "other.png"}, {"url": None, "path": file}]
    parts.append({"url": str(file), "path": "other.png"})
    rows = [
        model.generate([{"role": "user", "content": [{"type": "image", **part}]}], chat=True)
        for part in parts
    ]
    assert rows[0].tokens == rows[1].tokens == rows[2].tokens
    away = [{"role": "user", "content": [{"type": "image", "url": "https://a.b/c.png"}]}]
    with pytest.raises(LoaderError, match=r"https://a\.b/c\.png"):
        model.generate(away, chat=True)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (3, 5), (1, 63)])
def test_pictures_of_odd_forms(smolvlm: Case, shape: tuple[int, int], model: Model) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
    row = model.generate("<image> w7", images=[image], max_new_tokens=NEW)
    assert row.ids == smolvlm.theirs.ids("<image> w7", [image])
    assert row.tokens == smolvlm.theirs.tokens("<image> w7", [image], NEW)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA", "I;16", "I", "F", "CMYK"])
def test_pictures_of_other_kinds(mode: str, seen: list[Image.Image], model: Model) -> None:
    image = seen[0].convert("L").convert(mode)
    row, shown = (
        model.generate("<image> w7", images=[one], max_new_tokens=NEW)
        for one in (image, image.convert("RGB"))
    )
    assert row.tokens == shown.tokens


@pytest.mark.parametrize(("mode", "most"), [("I;16", 65535), ("I", 256), ("F", 1.0)])
def test_numbers_that_are_no_bytes_are_refused(mode: str, most: float, model: Model) -> None:
    """Pillow makes white of all above 255, and black of all up to 1."""
    numbers = np.linspace(0, most, 60 * 40).reshape(40, 60)
    image = Image.fromarray(numbers.astype({"I;16": "u2", "I": "i4", "F": "f4"}[mode]))
    assert image.mode == mode
    with pytest.raises(LoaderError, match=rf"cannot be read: numbers up to {most}: scale them"):
        model.pixels([image])


def test_an_image_of_nothing_is_refused(model: Model) -> None:
    with pytest.raises(LoaderError):
        model.pixels([Image.new("I", (0, 0))])


def test_what_shows_through_stands_on_white(model: Model) -> None:
    clear, white = Image.new("RGBA", (60, 40), (9, 9, 9, 0)), np.full((40, 60, 3), 255, np.uint8)
    np.testing.assert_array_equal(model.pixels([clear]), model.pixels([white]))


def test_files_that_end_early_or_are_too_large(
    model: Model, tmp_path: Path, seen: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("png", "jpeg", "gif"):
        whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
        seen[0].save(whole)
        cut.write_bytes(whole.read_bytes()[:200])
        with pytest.raises(LoaderError, match=rf"cut\.{kind} is no image"):
            model.generate("<image> w7", images=[cut])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 - 1)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(LoaderError, match="more than Pillow's limit"),
    ):
        model.generate("<image> w7", images=[whole])
