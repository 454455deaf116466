"""Every model of the zoo that sees: the unlowered graph equals PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lepton_compile.errors import ExportError
from lepton_compile.export import Pooling, resolve
from lepton_compile.export.export import export
from lepton_compile.export.reference import load_reference
from lepton_compile.export.task_names import infer_task
from lepton_compile.export.vision import image_output

from .harness import FP32, compiled, relative_error, run, save
from .zoo_images import CLASSIFIERS, FEATURES, SIZE, WHOLES

# One of each kind; the others take minutes together.
SHOWN = (
    *("vit", "dinov2", "dinov3", "clip-projection", "siglip", "pixio", "beit", "swin"),
    *("convnext", "resnet", "bit", "mobilevit", "segformer"),
)
OWN = Pooling("own", normalize=False)


def _few(names: Iterable[str], shown: Sequence[str]) -> list[Any]:
    return [pytest.param(n, marks=[] if n in shown else [pytest.mark.slow]) for n in names]


def _pixels(size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)


def _compared(folder: Path, model: Any, task: str, size: int = SIZE, **options: Any) -> str:
    """How a saved model was captured; its outputs are PyTorch's."""
    exported, session = compiled(folder, task, **options)
    pixels = _pixels(size)
    with torch.no_grad():
        expected = model(pixel_values=torch.from_numpy(pixels))
    found = run(session, {"pixel_values": pixels})
    for name, values in found.items():
        assert relative_error(values, image_output(expected, name).numpy()) <= FP32, name
    return exported.how


@pytest.mark.parametrize("name", _few(FEATURES, SHOWN))
def test_features_equal_pytorch(name: str, tmp_path: Path) -> None:
    config, how = FEATURES[name]
    model = save(config, "image-feature-extraction", tmp_path)
    assert _compared(tmp_path, model, "image-feature-extraction", pooling=OWN) == how


@pytest.mark.parametrize("name", _few(CLASSIFIERS, ("vit", "swin", "resnet", "deit-teacher")))
def test_classes_equal_pytorch(name: str, tmp_path: Path) -> None:
    config, how = CLASSIFIERS[name]
    model = save(config, "image-classification", tmp_path)
    assert _compared(tmp_path, model, "image-classification") == how


@pytest.mark.parametrize("architecture", list(WHOLES))
def test_the_part_that_sees_is_taken_out_of_a_whole(architecture: str, tmp_path: Path) -> None:
    config = WHOLES[architecture]()
    whole = getattr(transformers, architecture)(config).eval()
    whole.save_pretrained(tmp_path)
    exported, session = compiled(tmp_path, "image-feature-extraction", pooling=OWN)
    pixels = _pixels()
    with torch.no_grad():
        wanted = whole.get_image_features(pixel_values=torch.from_numpy(pixels)).pooler_output
    name, found = run(session, {"pixel_values": pixels}).popitem()
    assert relative_error(found, wanted.numpy()) <= FP32
    assert exported.notes[0] == f"of {architecture} the vision tower alone"
    alone = load_reference(resolve(str(tmp_path), base=tmp_path), "image-feature-extraction")
    with torch.no_grad():
        again = alone(pixel_values=torch.from_numpy(pixels))
    assert relative_error(image_output(again, name).numpy(), wanted.numpy()) <= FP32


@pytest.mark.parametrize("kind", ["cls", "mean", "max"])
def test_a_vector_is_made_of_tokens(kind: str, tmp_path: Path) -> None:
    model = save(FEATURES["dinov2"][0], "image-feature-extraction", tmp_path)
    pooling = Pooling(kind, normalize=True)
    _, session = compiled(tmp_path, "image-feature-extraction", pooling=pooling)
    with torch.no_grad():
        hidden = model(pixel_values=torch.from_numpy(_pixels())).last_hidden_state.numpy()
    wanted = {"cls": hidden[:, 0], "mean": hidden.mean(1), "max": hidden.max(1)}[kind]
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    found = run(session, {"pixel_values": _pixels()})["image_embedding"]
    assert relative_error(found, wanted) <= FP32


def test_maps_of_features_have_no_tokens_to_pool(tmp_path: Path) -> None:
    save(FEATURES["resnet"][0], "image-feature-extraction", tmp_path)
    with pytest.raises(ExportError, match="a map of features, not tokens"):
        compiled(tmp_path, "image-feature-extraction", pooling=Pooling("mean", normalize=False))


def test_a_pooler_that_the_checkpoint_lacks_is_left_out(tmp_path: Path) -> None:
    save(FEATURES["vit"][0], "image-classification", tmp_path)
    exported, _ = compiled(tmp_path, "image-feature-extraction", pooling=OWN)
    assert [value.name for value in exported.model.graph.outputs] == ["last_hidden_state"]
    with pytest.raises(ExportError, match="no image embedding that could be normalized"):
        compiled(tmp_path, "image-feature-extraction", pooling=Pooling("own", normalize=True))


@pytest.mark.parametrize("name", ["vit", "dinov2", "siglip"])
def test_positions_are_interpolated_for_another_size(name: str, tmp_path: Path) -> None:
    model = save(FEATURES[name][0], "image-feature-extraction", tmp_path)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 48}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    if name != "dinov2":  # which needs not be told
        plain = model.forward
        model.forward = lambda **given: plain(**given, interpolate_pos_encoding=True)  # type: ignore[method-assign, operator]
    assert _compared(tmp_path, model, "image-feature-extraction", 48, pooling=OWN) == "stamped"


def test_without_a_size_nothing_is_captured(tmp_path: Path) -> None:
    save(
        lambda: transformers.ResNetConfig(hidden_sizes=[8, 8], depths=[1, 1], embedding_size=8),
        "image-classification",
        tmp_path,
    )
    with pytest.raises(ExportError, match="nothing says how large the images are"):
        export(resolve(str(tmp_path), base=tmp_path), "image-classification", weights=False)


def test_pictures_in_tiles_are_not_taken_for_whole_ones(tmp_path: Path) -> None:
    save(FEATURES["vit"][0], "image-feature-extraction", tmp_path)
    settings = {"image_processor_type": "SmolVLMImageProcessor", "max_image_size": None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ExportError, match="takes images in tiles") as caught:
        export(resolve(str(tmp_path), base=tmp_path), "image-feature-extraction", weights=False)
    assert "'edge': 1456" in str(caught.value)


def test_the_task_is_told_from_the_class() -> None:
    for name in ("ViTModel", "Dinov2Model", "CLIPVisionModelWithProjection", "ResNetModel"):
        assert infer_task(name) == "image-feature-extraction"
    for name in ("ViTForImageClassification", "DeiTForImageClassificationWithTeacher"):
        assert infer_task(name) == "image-classification"
    assert infer_task("BertModel") == "feature-extraction"
