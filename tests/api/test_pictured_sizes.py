"""Models that see pictures of any size: arrays in and out, what is held, builds, and refusals."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import transformers
from PIL import Image

import lepton_compile as lc
from lepton_compile.cli import main
from lepton_compile.errors import ExportError, RecipeError, SourceError
from lepton_compile.runtime import LoaderError
from lepton_compile.runtime.loader import Model
from lepton_compile.runtime.loader_grids import GridSeer
from tests.pictured import (
    ASKS,
    GRIDS,
    PATCH,
    QUANTIZED,
    TOKEN,
    Case,
    check_quantized,
    made,
    pictures,
    saved,
)
from tests.pictured_models import AXED, GEMMA4, PIXTRALS
from tests.runtime.test_emit import imported
from tests.runtime.test_loader_forged import edited, outcomes

NEW = 6
UNIT = 2 * PATCH
TOLERANCE = 1e-5  # fp32 in another order of additions, relative to the range of the logits
MARK = ASKS["qwen2_5_vl"]


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made("qwen2_5_vl", tmp_path_factory.mktemp("windows"))


@pytest.fixture(scope="module")
def model(windows: Case) -> Iterator[Model]:
    with lc.load(windows.folder, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model whose decoder adds features of several layers."""
    return saved("qwen3_vl", tmp_path_factory.mktemp("layers"))


def image(rows: int, columns: int) -> Image.Image:
    return Image.fromarray(pictures(1, rows, columns)[0])


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


@pytest.mark.parametrize("left", [True, False])
def test_arrays_in_and_out(left: bool, windows: Case, model: Model) -> None:
    """Of a row with a picture, and of one without, padded on either side."""
    seen, text = image(40, 61), f"w2 {MARK} what"
    given = model.prepared(text, [seen])
    ids, wanted = windows.theirs.ids(text, [seen]), windows.theirs.logits(text, [seen])
    assert given["input_ids"].tolist() == [ids]
    np.testing.assert_array_equal(given["encoder_pixel_values"], model.pixels([seen]))
    found = model.run(given)["logits"][0]
    assert np.abs(found - wanted).max() < TOLERANCE * np.ptp(wanted)
    words, plain = [5, 6, 7], windows.theirs.logits("w2 what", [])
    short = windows.theirs.ids("w2 what", [])
    more = len(ids) - len(short)
    pad, ones = [words[0]] * more, [1] * len(short)
    given["input_ids"] = np.array([ids, pad + short if left else short + pad])
    mask = [[1] * len(ids), [0] * more + ones if left else ones + [0] * more]
    given["attention_mask"] = np.array(mask)
    apart = given["position_offsets"]
    given["position_offsets"] = np.concatenate([apart, np.zeros_like(apart)], 1)
    both = model.run(given)["logits"]
    assert np.abs(both[0] - wanted).max() < TOLERANCE * np.ptp(wanted)
    other = both[1][np.array(mask[1]) == 1]
    assert np.abs(other - plain).max() < TOLERANCE * np.ptp(plain)


def test_arrays_without_a_picture(windows: Case, model: Model) -> None:
    wanted = windows.theirs.logits("w2 what", [])
    for given in (
        model.prepared("w2 what", []),
        {"input_ids": [windows.theirs.ids("w2 what", [])]},
    ):
        found = model.run(given)["logits"][0]
        assert np.abs(found - wanted).max() < TOLERANCE * np.ptp(wanted)


def test_run_takes_one_picture(model: Model) -> None:
    two = [image(40, 60), image(60, 40)]
    for call in (lambda: model.pixels(two), lambda: model.prepared(f"{MARK} {MARK}", two)):
        with pytest.raises(LoaderError, match=r"run\(\) takes one image, not 2: generate"):
            call()
    given = model.prepared(f"{MARK} w", two[:1])
    for wrong in (
        {**given, "input_ids": given["input_ids"] * 0 + 5},
        {name: given[name] for name in ("input_ids", "position_offsets")},
    ):
        with pytest.raises(LoaderError, match=r"takes \d+ placeholders, and the ids have \d+"):
            model.run(wrong)


def test_run_wants_the_places_of_what_is_behind_a_picture(model: Model) -> None:
    """Else they would be those of a text alone."""
    given = model.prepared(f"{MARK} what", [image(40, 60)])
    apart = given.pop("position_offsets")
    with pytest.raises(LoaderError, match=r"give position_offsets, too: prepared\(\)"):
        model.run(given)
    held = model.run(given | {"position_offsets": apart})
    past = {
        name.replace("present.", "past_key_values."): value
        for name, value in held.items()
        if name.startswith("present.")
    }
    with pytest.raises(LoaderError, match=r"give position_offsets, too: prepared\(\)"):
        model.run({"input_ids": [[7]], **past})


def test_tokens_of_a_picture_stand_together(windows: Case, model: Model) -> None:
    seen = image(40, 60)
    ids = windows.theirs.ids(f"{MARK} w7", [seen])
    at = ids.index(TOKEN)
    ids[at : at + 3] = [TOKEN, ids[-1], TOKEN]
    ids.append(TOKEN)
    with pytest.raises(LoaderError, match="which stand one behind another"):
        model.generate(ids, images=[seen])


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (3, 5), (200, 1), (17, 33), (300, 300)])
def test_pictures_of_odd_forms(windows: Case, model: Model, shape: tuple[int, int]) -> None:
    one = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8))
    row = model.generate(f"{MARK} w7", images=[one], max_new_tokens=NEW)
    assert row.ids == windows.theirs.ids(f"{MARK} w7", [one])
    assert row.tokens == windows.theirs.tokens(f"{MARK} w7", [one], NEW)


def test_a_picture_that_is_too_thin(model: Model) -> None:
    with pytest.raises(LoaderError, match="an image of 1 x 201 is too thin"):
        model.generate(f"{MARK} w7", images=[np.zeros((1, 201, 3), np.uint8)])


def test_a_picture_is_known_by_its_form_too(
    windows: Case, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes in another form are another picture, with as many tokens."""
    seen, see = list[int](), GridSeer.see

    def looked(seer: Any, pixels: Any) -> np.ndarray:
        seen.append(len(pixels))
        return see(seer, pixels)

    monkeypatch.setattr(GridSeer, "see", looked)
    model.forget()
    grey = [Image.new("RGB", size, (9, 99, 200)) for size in ((4 * UNIT, UNIT), (UNIT, 4 * UNIT))]
    text = f"{MARK} {'w7 what is there? ' * 3}"
    for which, looks in ((0, 1), (0, 0), (1, 1), (1, 0)):
        seen.clear()
        row = model.generate(text, images=[grey[which]], max_new_tokens=NEW)
        assert sum(seen) == looks
        assert row.tokens == windows.theirs.tokens(text, [grey[which]], NEW)


def test_the_manifest_and_the_words_for_it(
    windows: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((windows.folder / "manifest.json").read_text())
    told = manifest["generation"]["pictures"]
    assert told["grid"] == {"patch": PATCH, "merge": 2, "frames": 2, "window": 2, "axes": 3}
    assert (told["placeholder"], "tokens" in told) == (TOKEN, False)
    assert (manifest["image"]["least"], manifest["image"]["most"]) == (4 * UNIT**2, 15 * UNIT**2)
    words = "by its size, up to 15 of 320 tokens"
    assert main(["inspect", str(windows.folder)]) == 0
    assert words in capsys.readouterr().out
    assert words in (windows.folder / "report.html").read_text()
    assert main(["plan", "--model", str(windows.source)]) == 0
    assert words in capsys.readouterr().out
    verified = report(windows.folder)["verify"]
    assert verified["decode_agreement"] == 1.0
    assert verified["perplexity"] == pytest.approx(verified["reference_perplexity"], rel=1e-4)


def test_it_is_benched_and_built_again(windows: Case, tmp_path: Path) -> None:
    timed = lc.bench(windows.folder, rounds=1, threads=1)
    assert [case["name"].split(",")[0] for case in timed["cases"]] == ["see", "decode 64"]
    lc.rebuild(windows.folder, output=tmp_path / "again")
    both = [(at / "manifest.json").read_bytes() for at in (windows.folder, tmp_path / "again")]
    assert both[0] == both[1]


@pytest.mark.parametrize(("quantize", "least"), QUANTIZED.values(), ids=QUANTIZED)
def test_quantized(quantize: Any, least: float, folder: Path, tmp_path: Path) -> None:
    check_quantized(folder, quantize, least, MARK, tmp_path / "out")


@pytest.mark.parametrize("bits", ["int8", "awq"])
@pytest.mark.parametrize("kind", [*GEMMA4, "mistral3", "paddleocr_vl"])
def test_others_quantized(kind: str, bits: str, tmp_path: Path) -> None:
    quantize, least = QUANTIZED[bits]
    source = saved(kind, tmp_path / "model")
    check_quantized(source, quantize, least, ASKS[kind], tmp_path / "out")


def test_what_transformers_itself_cannot_run(tmp_path: Path) -> None:
    """It cuts what layers are given of each token where caches are shared, also where that is
    nothing."""
    source = saved("gemma4", tmp_path / "model")
    config = transformers.AutoConfig.from_pretrained(source)
    config.text_config.hidden_size_per_layer_input = 0
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(source)
    with pytest.raises(ExportError, match="own model fails on what the engine is compared on"):
        lc.build(model=str(source), output=tmp_path / "out", tactics="default")


@pytest.mark.parametrize("kind", GRIDS)
def test_large_pictures_leave_room_for_words(kind: str, tmp_path: Path) -> None:
    """Three fourths of the longest sequence at most: larger ones are made smaller."""
    source = saved(kind, tmp_path / "model")
    file = source / "preprocessor_config.json"
    wide = {"longest_edge": 1024} if kind in PIXTRALS else {"longest_edge": 1 << 22}
    size = {"shortest_edge": UNIT**2, **wide} if kind in AXED else wide
    changed = {"max_soft_tokens": 140} if kind in GEMMA4 else {"size": size}
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    how: dict[str, Any] = {"tactics": "default", "shapes": {"sequence": [1, 40]}}
    built = lc.build(model=str(source), output=tmp_path / "out", **how)
    with lc.load(built.path, threads=1) as model:
        assert model.manifest["image"]["most"] == 30 * UNIT**2
        row = model.generate(f"{ASKS[kind]} w", images=[image(900, 700)], max_new_tokens=4)
        assert row.ids.count(TOKEN) in range(20 if kind in PIXTRALS else 24, 31)
        assert len(row.tokens) == 4


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"sequence": [1, 17]}, "no picture has room .*\n.*17 tokens\n.*18 on"),
        ({"batch": [2, 4]}, r"takes single rows, too(.*\n)+.*2\.\.4\n.*1\.\.4"),
    ],
)
def test_what_cannot_be_built(
    shapes: dict[str, Any], words: str, folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    file = other / "preprocessor_config.json"
    size = {"shortest_edge": 16 * UNIT**2, "longest_edge": 1 << 20}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"size": size}))
    for call in (lc.plan, lc.build):
        with pytest.raises(RecipeError) as caught:
            call(model=str(other), shapes=shapes)
        assert re.search(words, str(caught.value))


def test_a_picture_just_has_room(tmp_path: Path) -> None:
    case = made("qwen2_5_vl", tmp_path, shapes={"sequence": [1, 14]})
    assert report(case.folder)["verify"]["segments"] > 0
    assert lc.bench(case.folder, rounds=1, threads=1, eager=False)["cases"]


def test_without_a_tokenizer_ids_have_every_place(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (bare / name).unlink(missing_ok=True)
    built = lc.build(model=str(bare), output=tmp_path / "out", tactics="default")
    with lc.load(built.path, threads=1) as model:
        one = np.asarray(image(3 * UNIT, 2 * UNIT))
        row = model.generate([*[TOKEN] * 6, 7], images=[one], max_new_tokens=NEW)
        assert (len(row.tokens), row.text) == (NEW, None)
        with pytest.raises(LoaderError, match=r"has token \d+ 1 times, and 1 images take 6"):
            model.generate([TOKEN, 7], images=[one])


def test_without_a_preprocessor(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "model")
    (bare / "preprocessor_config.json").unlink()
    built = lc.build(model=str(bare), output=tmp_path / "out", tactics="default")
    assert report(built.path)["verify"]["segments"] > 0
    assert main(["inspect", str(built.path)]) == 0
    with lc.load(built.path, threads=1) as model:
        assert model.generate("w7 w8", max_new_tokens=NEW).tokens
        with pytest.raises(LoaderError, match=r"without preprocessor_config\.json"):
            model.generate(f"{MARK} w7", images=pictures(1))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"patch_size": 14}, "patch_size: 14"),
        ({"merge_size": 1}, "merge_size: 1"),
        ({"temporal_patch_size": "2"}, "temporal_patch_size: '2'"),
        ({"image_processor_type": "CLIPImageProcessor", "size": 224}, "pictures of one size"),
    ],
)
def test_an_image_processor_for_another_tower(
    changes: dict[str, Any], found: str, folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(folder, tmp_path / "model")
    file = other / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    for call in (lc.plan, lc.build):
        with pytest.raises(SourceError, match="does not make what the vision tower takes") as e:
            call(model=str(other), output=tmp_path / "out")
        assert found in str(e.value.found)
        assert f"patch_size: {PATCH}" in str(e.value.available)


def test_a_tower_for_pictures_of_one_size_with_such_a_processor(tmp_path: Path) -> None:
    source = saved("llava", tmp_path)
    made_so = {"image_processor_type": "Qwen2VLImageProcessor"}
    (source / "preprocessor_config.json").write_text(json.dumps(made_so))
    with pytest.raises(SourceError, match="does not make what the vision tower takes"):
        lc.plan(model=str(source))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", 0),
        ("patch_size", 65),
        ("patch_size", [8, 8]),
        ("spatial_merge_size", 9),
        ("temporal_patch_size", -1),
        ("window_size", 7),
        ("window_size", 10**6),
        ("in_channels", 4),
        ("out_hidden_size", 128),
        ("hidden_size", 36),
        ("num_heads", 0),
    ],
)
def test_towers_that_no_model_has(name: str, value: Any, windows: Case, tmp_path: Path) -> None:
    other = shutil.copytree(windows.source, tmp_path / "model")
    file = other / "config.json"
    config = json.loads(file.read_text())
    config["vision_config"][name] = value
    file.write_text(json.dumps(config))
    with pytest.raises((ExportError, SourceError)) as caught:
        lc.plan(model=str(other))
    assert name in f"{caught.value.where} {caught.value.found}"


@pytest.mark.parametrize(
    ("kind", "name", "value", "words"),
    [
        ("qwen2_5_vl", "mrope_section", [16, 24, 24], "mrope_section"),
        ("qwen2_5_vl", "mrope_section", "8", "mrope_section"),
        ("qwen3_vl", "rope_type", "longrope", "rope_type: longrope"),
    ],
)
def test_positions_that_turn_heads_otherwise(
    kind: str, name: str, value: Any, words: str, tmp_path: Path
) -> None:
    source = saved(kind, tmp_path / "model")
    file = source / "config.json"
    config = json.loads(file.read_text())
    rope = config["text_config"]["rope_parameters"] | {name: value}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8} if name == "rope_type" else {}
    rope |= {"original_max_position_embeddings": 64}
    config["text_config"]["rope_parameters"] = rope
    file.write_text(json.dumps(config))
    with pytest.raises(ExportError) as caught:
        lc.plan(model=str(source))
    assert words in f"{caught.value.where} {caught.value.found}"


def test_small_weights_are_called_the_same_in_a_rebuild(tmp_path: Path) -> None:
    """Those that stay in a graph: a check gives weights other names, which a rebuild has not."""
    source = saved("qwen2_5_vl", tmp_path / "model")
    how: dict[str, Any] = {"tactics": "default", "gates": {"perplexity": None}}
    built = lc.build(model=str(source), quantize="int4", output=tmp_path / "out", **how)
    encoder = onnx.load(built.path / "engines/ort-cpu/encoder.onnx", load_external_data=False)
    small = [tensor for tensor in encoder.graph.initializer if tensor.raw_data]
    assert any("_q_blocks" in tensor.name for tensor in small)
    assert not any(tensor.metadata_props for tensor in small)
    lc.rebuild(built.path, output=tmp_path / "again")


def test_no_edit_of_a_manifest_ends_in_anything_but_a_refusal(
    windows: Case, tmp_path: Path
) -> None:
    forged = Path(shutil.copytree(windows.folder, tmp_path / "forged"))
    loader = imported(forged / "loader.py")
    for under, least in ((("generation", "pictures"), 60), (("image",), 90), (("inputs",), 60)):
        refused, _ = outcomes(forged, loader, under)
        assert refused > least


GRID = ("generation", "pictures", "grid")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ((*GRID, "window"), 3, "damaged: pictures cannot be cut into"),
        ((*GRID, "frames"), 64, "damaged: pictures cannot be cut into"),
        (("inputs", 1, "name"), "places", "damaged: pictures cannot be cut into"),
        (("inputs", 1, "shape"), [1 << 20] * 3 + [2], "damaged: pictures cannot be cut into"),
        (("inputs", 5, "name"), "offsets", "damaged: pictures cannot be cut into"),
        (("inputs", 5, "shape"), ["axes", "batch", "sequence"], "pictures cannot be cut into"),
        ((*GRID, "merge"), 4, "damaged: pictures cannot be cut into"),
        (GRID, None, "damaged"),
        (("image", "most"), 1 << 40, "damaged: pictures cannot be cut into"),
    ],
)
def test_manifests_that_lie(
    path: tuple[Any, ...], value: Any, said: str, windows: Case, tmp_path: Path
) -> None:
    forged = Path(shutil.copytree(windows.folder, tmp_path / "forged"))
    file = forged / "manifest.json"
    file.write_text(json.dumps(edited(json.loads(file.read_text()), path, value)))
    loader = imported(forged / "loader.py")
    with pytest.raises(loader.LoaderError, match=said), loader.load(forged, threads=1) as model:
        model.generate(f"{MARK} w7", images=pictures(1), max_new_tokens=2)
