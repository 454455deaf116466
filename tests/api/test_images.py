"""Models that see, built and held against transformers: vectors, classes, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import lepton_compile as lc
from lepton_compile.cli import main
from lepton_compile.errors import RecipeError
from lepton_compile.runtime import LoaderError
from tests.export.harness import save
from tests.export.zoo_images import FEATURES, SIZE
from tests.runtime.test_emit import imported
from tests.runtime.test_loader_forged import outcomes

# Means and deviations of their own, and the middle of what was resized.
SETTINGS = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIZE + 8},
    "crop_size": {"height": SIZE, "width": SIZE},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.4],
    "do_convert_rgb": True,
}
# fp32 in another order of additions, relative to vectors of unit size.
TOLERANCE = 1e-5


def made(name: str, task: str, folder: Path) -> torch.nn.Module:
    model = save(FEATURES[name][0], task, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    return model


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """A model whose own vectors are in the space of texts, built to fp32."""
    folder = tmp_path_factory.mktemp("images")
    model = made("clip-projection", "image-feature-extraction", folder / "model")
    recipe = {"model": str(folder / "model"), "shapes": {"batch": [1, 4]}}
    return model, lc.build(recipe, output=folder / "out").path


def pictures(count: int, height: int = SIZE + 8, width: int = SIZE + 8) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return list(random.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def as_told(given: list[np.ndarray]) -> np.ndarray:
    """What the settings ask for, in numpy; of pictures that need not be resized."""
    cut = np.stack(given)[:, 4:-4, 4:-4].astype(np.float64) / 255
    return ((cut - SETTINGS["image_mean"]) / SETTINGS["image_std"]).transpose(0, 3, 1, 2)


def test_vectors_are_those_of_pytorch(embedder: tuple[Any, Path]) -> None:
    model, folder = embedder
    given = pictures(6)  # more than the engine takes at once
    with torch.no_grad():
        wanted = model(pixel_values=torch.tensor(as_told(given), dtype=torch.float32))
    with lc.load(folder) as engine:
        np.testing.assert_allclose(engine.pixels(given), as_told(given), atol=1e-6)
        np.testing.assert_allclose(engine.embed(given), wanted.image_embeds, atol=TOLERANCE)
        with pytest.raises(LoaderError, match="no prompts"):
            engine.embed(given, prompt="query")


def test_the_manifest_and_the_report_say_what_it_is(embedder: tuple[Any, Path]) -> None:
    _, folder = embedder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["task"] == "image-feature-extraction"
    assert manifest["embedding"]["output"] == "image_embeds"
    assert manifest["image"]["size"] == [SIZE, SIZE]
    assert manifest["image"]["resize"] == [SIZE + 8]
    assert "preprocessor_config.json" in manifest["files"]
    assert manifest["engines"][0]["compared"] == {"passes": True, "engine": True}
    assert manifest["tokenizer"] is None
    assert "32 synthetic images" in (folder / "report.html").read_text()


def test_no_edit_of_what_is_said_of_pictures_ends_in_anything_but_a_refusal(
    embedder: tuple[Any, Path], tmp_path: Path
) -> None:
    forged = Path(shutil.copytree(embedder[1], tmp_path / "forged"))
    refused, _ = outcomes(forged, imported(forged / "loader.py"), ("image",))
    assert refused > 50


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((SIZE, SIZE, 3), np.uint8), "a list of images, not one"),
        ("photo.jpg", "a list of images, not one"),
        ([], "no images"),
        (5, "a list of images, not 5"),
        ([np.zeros((SIZE, SIZE, 3), np.float32)], "uint8"),
        ([np.zeros((3, SIZE, SIZE), np.uint8)], r"not uint8 \(3, 32, 32\)"),
        ([np.zeros((SIZE, SIZE), np.uint8)], r"not uint8 \(32, 32\)"),
        ([np.zeros((0, SIZE, 3), np.uint8)], "uint8"),
        ([np.zeros((1, 50_000, 3), np.uint8)], "which has to be 40 x 2000000, is too thin"),
        ([np.zeros((50_000, 1, 3), np.uint8)], "which has to be 2000000 x 40, is too thin"),
    ],
)
def test_what_is_no_picture_is_refused(given: Any, said: str, embedder: tuple[Any, Path]) -> None:
    with lc.load(embedder[1]) as engine, pytest.raises(LoaderError, match=said):
        engine.embed(given)


def test_without_pillow_it_says_what_to_install(
    embedder: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with lc.load(embedder[1]) as engine:
        assert engine.embed(pictures(1)).shape == (1, 24)  # nothing has to be resized
        for given in ("photo.jpg", np.zeros((9, 9, 3), np.uint8)):
            with pytest.raises(LoaderError, match="pip install pillow"):
                engine.embed([given])


def test_pictures_are_made_as_transformers_makes_them(
    embedder: tuple[Any, Path], tmp_path: Path
) -> None:
    pillow = pytest.importorskip("PIL.Image")
    processor = transformers.CLIPImageProcessorPil(**SETTINGS)
    (wide,), (high,) = pictures(1, 60, 91), pictures(1, 90, 61)
    clear = np.concatenate([wide, wide[..., :1]], axis=-1)
    given = [pillow.fromarray(each) for each in (wide, high, clear)]
    given += [given[0].convert("L"), given[0].convert("P")]
    wanted = [processor(each, return_tensors="np")["pixel_values"][0] for each in given]
    with lc.load(embedder[1]) as engine:
        # The same resampling of bytes; what follows is the same arithmetic in fp32.
        np.testing.assert_allclose(engine.pixels(given), wanted, atol=1e-6)
        np.testing.assert_array_equal(engine.pixels([wide]), engine.pixels(given[:1]))


def test_files(
    embedder: tuple[Any, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pillow = pytest.importorskip("PIL.Image")
    file, broken = tmp_path / "one.png", tmp_path / "broken.png"
    (given,) = pictures(1, 50, 70)
    pillow.fromarray(given).save(file)
    broken.write_bytes(file.read_bytes()[:200])
    with lc.load(embedder[1]) as engine:
        vectors = engine.embed([file, str(file), given])
        np.testing.assert_array_equal(vectors[0], vectors[2])
        for bad in (broken, tmp_path / "none.png", Path(__file__)):
            with pytest.raises(LoaderError, match=f"{bad.name} is no image"):
                engine.embed([bad])
        monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", 50 * 70 - 1)
        with (
            pytest.warns(pillow.DecompressionBombWarning),
            pytest.raises(LoaderError, match="more than Pillow's limit"),
        ):
            engine.embed([file])
    monkeypatch.undo()
    script = [sys.executable, embedder[1] / "loader.py", "--image", file]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert np.allclose(json.loads(done.stdout)["embedding"], vectors[0])
    assert main(["run", str(embedder[1]), "--image", str(file), "--json"]) == 0
    assert np.allclose(json.loads(capsys.readouterr().out)[0]["embedding"], vectors[0])


def test_classes_in_int8(tmp_path: Path) -> None:
    model = made("vit", "image-classification", tmp_path / "model")
    recipe = {
        "model": str(tmp_path / "model"),
        "quantize": "int8",
        "tactics": "default",
        "gates": {"argmax": 0.5},
    }
    built = lc.build(recipe, output=tmp_path / "out")
    given = pictures(3)
    with torch.no_grad():
        logits = model(pixel_values=torch.tensor(as_told(given), dtype=torch.float32)).logits
    with lc.load(built.path) as engine:
        found = engine.classify(given)
        with pytest.raises(LoaderError, match=r"image-classification"):
            engine.answer("a", "b")
    for one, chances in zip(found, logits.softmax(-1).tolist(), strict=True):
        assert set(one) == {"LABEL_0", "LABEL_1"}
        assert [*one.values()] == sorted(one.values(), reverse=True)
        assert one["LABEL_0"] == pytest.approx(chances[0], abs=0.05)  # weights of 8 bits


def test_what_a_recipe_says_of_texts_is_a_mistake(embedder: tuple[Any, Path]) -> None:
    model = str(embedder[1].parent / "model")
    for wrong in (
        {"shapes": {"sequence": 64}},
        {"verify": {"tokens": 9}},
        {"pooling": "lasttoken"},
    ):
        with pytest.raises(RecipeError, match="changes nothing here"):
            lc.plan({"model": model, **wrong})


def test_a_plan_says_what_a_build_would_make(embedder: tuple[Any, Path]) -> None:
    found = lc.plan({"model": str(embedder[1].parent / "model"), "quantize": "int4"})
    assert found.task == "image-feature-extraction"
    assert found.layers == "3 layers, 1 kind traced once each"
    assert found.verify is not None
