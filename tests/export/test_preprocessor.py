"""How pictures are made: read from the model's files, and refused where it is not done here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from lepton_compile.errors import SourceError
from lepton_compile.export.source.preprocessor import Preprocessing, preprocessing_of
from lepton_compile.export.source.processor_kinds import CLIP, KINDS
from lepton_compile.export.source.sizing import EDGE, FILL, GROW, SCALE, AnySize
from lepton_compile.export.source.tiling import Tiles
from lepton_compile.runtime.loader_tiles import check_tiles

SQUARE = {"height": 224, "width": 224}


def read(folder: Path, settings: Any, own: tuple[int, int] | None = None) -> Preprocessing:
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    found = preprocessing_of(folder, own)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("settings", "resize", "size", "crop"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, (224, 224), (224, 224), False),
        (
            {"image_processor_type": "ViTImageProcessorFast", "size": 384},
            (384,) * 2,
            (384,) * 2,
            False,
        ),
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 336},
            (336,),
            (336,) * 2,
            True,
        ),
        (
            {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}},
            (256,),
            (224, 224),
            True,
        ),
        ({"image_processor_type": "DeiTImageProcessor"}, (256, 256), (224, 224), True),
        (
            {
                "image_processor_type": "SiglipImageProcessor",
                "size": SQUARE,
                "do_center_crop": None,
            },
            (224, 224),
            (224, 224),
            False,
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
            (256,),
            (224, 224),
            True,
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
            (384, 384),
            (384, 384),
            False,
        ),
        (
            {"image_processor_type": "BeitImageProcessor", "do_reduce_labels": True},
            (224, 224),
            (224, 224),
            False,
        ),
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, (), (30, 40), False),
    ],
)
def test_forms_of_a_size(
    settings: dict[str, Any],
    resize: tuple[int, ...],
    size: tuple[int, ...],
    crop: bool,
    tmp_path: Path,
) -> None:
    found = read(tmp_path, settings, (30, 40))
    assert (found.resize, found.size, found.crop) == (resize, size, crop)


def test_numbers_are_the_file_s_then_those_of_its_class(tmp_path: Path) -> None:
    kind = {"image_processor_type": "CLIPImageProcessor"}
    found = read(tmp_path, kind)
    assert found.resample == "bicubic"
    assert found.mean == (0.48145466, 0.4578275, 0.40821073)
    assert found.scale == pytest.approx(1 / 255)
    own = {"image_mean": [0, 0.5, 1], "image_std": 2, "resample": 1, "rescale_factor": 0.5}
    found = read(tmp_path, kind | own)
    assert (found.mean, found.std) == ((0.0, 0.5, 1.0), (2.0, 2.0, 2.0))
    assert (found.resample, found.scale) == ("lanczos", 0.5)
    found = read(tmp_path, kind | {"do_rescale": False, "do_normalize": False})
    assert (found.scale, found.mean, found.std) == (1.0, (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"DINOv3ViT"}))  # which asks for torchvision
def test_a_class_is_known_by_its_own_numbers(name: str) -> None:
    """Where a file says nothing its class decides, and a table here has what that is."""
    known, whole = KINDS[name], f"{name}ImageProcessor"
    theirs = getattr(transformers, f"{whole}Pil", None) or getattr(transformers, whole)
    assert known.resample == theirs.resample
    assert known.mean == (tuple(theirs.image_mean), tuple(theirs.image_std))
    sizes = (known.edge,) if known.edge else known.size or known.pixels
    if known.fit == FILL:
        assert (theirs.patch_size, theirs.max_soft_tokens) == known.pixels
    else:
        assert tuple(theirs.size.values()) == sizes[: 1 if known.fit == EDGE else None]
    assert bool(known.crop) == bool(getattr(theirs, "do_center_crop", False))
    if known.crop:
        assert {*theirs.crop_size.values()} == {known.crop}
    if known.edge:
        assert (theirs.max_image_size["longest_edge"],) * 2 == known.size
    if known.part:
        assert theirs.crop_pct == known.part
    if known.patches:
        assert theirs.max_patches == known.patches


def test_that_of_a_model_of_several_parts_is_read_too(tmp_path: Path) -> None:
    assert preprocessing_of(tmp_path, None) is None
    whole = {"image_processor": {"image_processor_type": "SiglipImageProcessor", "size": SQUARE}}
    (tmp_path / "processor_config.json").write_text(json.dumps(whole))
    found = preprocessing_of(tmp_path, None)
    assert found is not None
    assert found.size == (224, 224)
    assert read(tmp_path, {"image_processor_type": "ViTImageProcessor", "size": 384}) == found
    (tmp_path / "processor_config.json").write_text('{"image_processor": null}')
    found = preprocessing_of(tmp_path, None)
    assert found is not None
    assert found.size == (384, 384)


def test_of_two_files_the_one_is_read_that_transformers_reads(tmp_path: Path) -> None:
    made = {
        edge: ViTImageProcessorPil(size={"height": edge, "width": edge}).to_dict()
        for edge in (32, 64)
    }
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": made[64]}))
    found = read(tmp_path, made[32])
    assert found.size == (64, 64)
    theirs = ViTImageProcessorPil.from_pretrained(tmp_path)
    assert (theirs.size["height"], theirs.size["width"]) == found.size


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_processor_type": "Siglip2ImageProcessor"}, "no image processor"),
        ({}, "no image processor"),
        ({"do_pad": True}, "do_pad: True"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"rescale_offset": True}, "rescale_offset"),
        ({"resample": 9}, "no way of resizing has this number"),
        ({"resample": "bicubic"}, "no way of resizing has this number"),
        ({"size": {"shortest_edge": 224}}, "images keep their aspect ratio"),
        ({"size": {"shortest_edge": 224, "longest_edge": 300}}, "in no form that is read"),
        ({"size": {"height": 0, "width": 4}}, "in no form that is read"),
        ({"size": [224, 224]}, "in no form that is read"),
        (
            {"size": SQUARE, "do_center_crop": True, "crop_size": 256},
            "larger than the resized image",
        ),
        ({"image_mean": [0.5]}, "one number for each of 3 colours"),
        ({"image_std": [0, 1, 1]}, "divided by 0"),
        ({"image_std": float("nan")}, "one number for each of 3 colours"),
        ({"rescale_factor": "1/255"}, "rescale_factor is a number"),
        ({"do_resize": "yes"}, "do_resize is true or false"),
        ({"do_resize": False}, "images keep their aspect ratio"),
    ],
)
def test_what_is_not_done_is_refused(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    kind = {"image_processor_type": "ViTImageProcessor"} if settings else {"size": 4}
    with pytest.raises(SourceError) as caught:
        read(tmp_path, kind | settings)
    assert said in str(caught.value)
    assert "preprocessor_config.json" in str(caught.value)


IN_TILES = {"image_processor_type": "SmolVLMImageProcessor"}


@pytest.mark.parametrize(
    ("settings", "side", "tiles"),
    [
        ({}, 364, {"kind": "longest-edge", "most": 16, "edge": 1456}),
        (
            {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
            512,
            {"kind": "longest-edge", "most": 16, "edge": 2048},
        ),
        (
            {"size": {"longest_edge": 511, "shortest_edge": None}, "do_pad": False},
            364,
            {"kind": "longest-edge", "most": 4, "edge": 511},
        ),
        (
            {"size": {"longest_edge": 15}, "max_image_size": {"longest_edge": 15}},
            15,  # a square of 15 becomes one of 16 x 15
            {"kind": "longest-edge", "most": 4, "edge": 15},
        ),
        ({"do_image_splitting": False}, 364, {"kind": "longest-edge", "most": 1, "edge": 1456}),
    ],
)
@pytest.mark.parametrize("kind", ["SmolVLM", "Idefics3"])
@pytest.mark.parametrize("ending", ["", "Fast", "Pil"])
def test_tiles_by_the_longest_edge(
    kind: str, ending: str, settings: Any, side: int, tiles: Any, tmp_path: Path
) -> None:
    found = read(tmp_path, {"image_processor_type": f"{kind}ImageProcessor{ending}"} | settings)
    assert found.entry() == {
        "size": [side] * 2,
        "resize": [side] * 2,
        "crop": False,
        "resample": "lanczos",
        "scale": pytest.approx(1 / 255),
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "file": "preprocessor_config.json",
        "tiles": tiles,
    }
    check_tiles({"image": found.entry()})


IN_PATCHES = {"image_processor_type": "GotOcr2ImageProcessorFast"}
BY_RATIO = {"kind": "closest-ratio", "most": 12, "least": 1}


@pytest.mark.parametrize(
    ("settings", "size", "tiles"),
    [
        ({"crop_to_patches": True}, 384, BY_RATIO),
        (
            {"crop_to_patches": True, "size": SQUARE, "min_patches": 2, "max_patches": 6},
            224,
            {"kind": "closest-ratio", "most": 6, "least": 2},
        ),
        ({"crop_to_patches": False, "size": 448}, 448, None),
        ({"crop_to_patches": True, "max_patches": 1}, 384, None),
        ({}, 384, None),
    ],
)
def test_tiles_by_the_closest_ratio(settings: Any, size: int, tiles: Any, tmp_path: Path) -> None:
    found = read(tmp_path, IN_PATCHES | settings)
    assert found.entry() == {
        "size": [size] * 2,
        "resize": [size] * 2,
        "crop": False,
        "resample": "bicubic",
        "scale": pytest.approx(1 / 255),
        "mean": list(CLIP[0]),
        "std": list(CLIP[1]),
        **({"file": "preprocessor_config.json"} | ({"tiles": tiles} if tiles else {})),
    }
    check_tiles({"image": found.entry()})


FAMILIES = [
    (family, getattr(transformers, PROCESSOR_MAPPING_NAMES[family]))
    for family, names in IMAGE_PROCESSOR_MAPPING_NAMES.items()
    if "GotOcr2ImageProcessor" in str(names)
]


def test_whether_a_picture_is_cut_is_for_the_processor_to_say(tmp_path: Path) -> None:
    assert {family for family, _ in FAMILIES} >= {"internvl", "got_ocr2", "aya_vision"}
    for family, made in FAMILIES:
        cuts = made.images_kwargs["crop_to_patches"]
        wanted = Tiles("closest-ratio", 12, least=1) if cuts else None
        says = {"crop_to_patches": not cuts}
        for named in ({"processor_class": made.__name__}, {}):
            (tmp_path / "config.json").write_text(
                json.dumps({} if named else {"model_type": family})
            )
            assert read(tmp_path, IN_PATCHES | says | named).tiles == wanted, family


def test_the_class_of_a_processor_is_looked_for_where_transformers_does(tmp_path: Path) -> None:
    def name(file: str, family: str) -> None:
        (tmp_path / file).write_text(json.dumps({"processor_class": f"{family}Processor"}))

    def cuts(own: bool = False) -> bool:
        return read(tmp_path, IN_PATCHES | {"crop_to_patches": own}).tiles is not None

    name("config.json", "InternVL")
    assert cuts()
    name("tokenizer_config.json", "GotOcr2")
    assert not cuts(True)
    name("processor_config.json", "InternVL")
    assert cuts()
    name("processor_config.json", "Other")
    assert not cuts()
    assert cuts(True)


def test_what_transformers_saves_of_tiles_is_read(tmp_path: Path) -> None:
    for made in (SmolVLMImageProcessorPil(), Idefics3ImageProcessorPil()):
        made.save_pretrained(tmp_path)
        found = preprocessing_of(tmp_path, None)
        assert found is not None
        assert found.size == (made.max_image_size["longest_edge"],) * 2
        assert found.tiles == Tiles("longest-edge", 16, made.size["longest_edge"])


def test_a_model_without_tiles_says_nothing_of_them(tmp_path: Path) -> None:
    assert "tiles" not in read(tmp_path, {"image_processor_type": "ViTImageProcessor"}).entry()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"do_pad": True}, "do_pad: True"),
        ({"crop_to_patches": "yes"}, "crop_to_patches is true or false"),
        ({"min_patches": 0}, "min_patches is a number from 1 on"),
        ({"max_patches": 1.5}, "max_patches is a number from 1 on"),
        ({"max_patches": True}, "max_patches is a number from 1 on"),
        ({"min_patches": 13}, "min_patches: 13, max_patches: 12"),
        ({"max_patches": 257}, "257 tiles of 384 x 384"),
        ({"size": {"height": 4096, "width": 1024}}, "12 tiles of 4096 x 1024"),
        ({"size": {"shortest_edge": 448}}, "images keep their aspect ratio"),
    ],
)
def test_patches_that_are_not_made_are_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError) as caught:
        read(tmp_path, IN_PATCHES | {"crop_to_patches": True} | settings)
    assert said in str(caught.value)
    assert "preprocessor_config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"do_resize": False}, "there would be no end"),
        ({"do_center_crop": True}, "do_center_crop: True"),
        ({"do_image_splitting": "yes"}, "do_image_splitting is true or false"),
        ({"size": 384}, "size is in no form that is read for images in tiles"),
        ({"size": SQUARE}, "size is in no form"),
        ({"size": {"longest_edge": 364, "shortest_edge": 20}}, "size is in no form"),
        ({"size": {"longest_edge": 4097}}, "longest_edge, a number from 1 to 4096"),
        ({"max_image_size": {"longest_edge": 0}}, "max_image_size is in no form"),
        ({"max_image_size": {"longest_edge": True}}, "max_image_size is in no form"),
        ({"max_image_size": SQUARE}, "max_image_size is in no form"),
        ({"max_image_size": {"longest_edge": 90}}, "289 tiles of 90 x 90"),
        (
            {"size": {"longest_edge": 4096}, "max_image_size": {"longest_edge": 4095}},
            "4 tiles of 4095 x 4095",
        ),
        ({"resample": "lanczos"}, "no way of resizing has this number"),
    ],
)
def test_tiles_that_are_not_made_are_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError) as caught:
        read(tmp_path, IN_TILES | settings)
    assert said in str(caught.value)
    assert "preprocessor_config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": ' * 2000])
def test_a_damaged_file_is_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(SourceError, match=r"preprocessor_config\.json"):
        preprocessing_of(tmp_path, None)


ANY = {"image_processor_type": "Qwen2VLImageProcessorFast"}


@pytest.mark.parametrize(
    ("settings", "pixels"),
    [
        ({}, (56 * 56, 1280 * 28 * 28)),
        ({"size": {"shortest_edge": 100, "longest_edge": 900}}, (100, 900)),
        ({"size": None, "max_pixels": 9000}, (56 * 56, 9000)),
        ({"size": {"height": 64}, "min_pixels": 64, "max_pixels": 128}, (64, 128)),
        ({"min_pixels": 784, "max_pixels": 12845056}, (784, 12845056)),
        ({"min_pixels": 784, "size": {"shortest_edge": 1, "longest_edge": 900}}, (784, 900)),
    ],
)
def test_pixels_of_pictures_of_any_size(
    settings: dict[str, Any], pixels: tuple[int, int], tmp_path: Path
) -> None:
    found = read(tmp_path, ANY | settings)
    assert (found.pixels, found.resize, found.size) == (AnySize(*pixels), (), ())
    told = found.entry()
    assert (told["least"], told["most"], told["size"]) == (*pixels, [])
    assert not {"tiles", "fit", "edge"} & {*told}


FILLED = {"image_processor_type": "Gemma4ImageProcessor"}
OF_THREE = {"min_pixels": 600, "max_pixels": 9999, "temporal_patch_size": 3}
SCALED = {"image_processor_type": "Glm46VImageProcessor"}
GROWN = {"image_processor_type": "PaddleOCRVLImageProcessor"}
EDGED = {"image_processor_type": "PixtralImageProcessorFast"}


@pytest.mark.parametrize(
    ("settings", "pixels"),
    [
        (FILLED, AnySize(48**2, 280 * 48**2, FILL)),
        ({**FILLED, "max_soft_tokens": 70}, AnySize(48**2, 70 * 48**2, FILL)),
        (
            {**FILLED, "patch_size": 8, "pooling_kernel_size": 2, "max_soft_tokens": 1120},
            AnySize(16**2, 1120 * 16**2, FILL),
        ),
        (EDGED, AnySize(1, 1024**2, EDGE, 1024)),
        ({**EDGED, "size": {"longest_edge": 1540}}, AnySize(1, 1540**2, EDGE, 1540)),
        (GROWN, AnySize(384**2, 1536**2, GROW)),
        (SCALED, AnySize(112**2 // 2, 28**2 * 7500, SCALE)),
        (
            {**SCALED, "min_pixels": 600, "temporal_patch_size": 3, "max_pixels": 9999},
            AnySize(200, 3333, SCALE),
        ),
        ({**GROWN, "min_pixels": 784, "max_pixels": 9999}, AnySize(784, 9999, GROW)),
    ],
)
def test_pixels_by_another_rule(settings: dict[str, Any], pixels: AnySize, tmp_path: Path) -> None:
    found = read(tmp_path, settings)
    assert found.pixels == pixels
    told = found.entry()
    assert [told[name] for name in ("least", "most", "fit")] == [
        *(pixels.least, pixels.most, pixels.fit)
    ]
    assert told.get("edge", 0) == pixels.edge
    plain = settings in (FILLED, EDGED)
    assert plain or found.mean == (IDENTITY if pixels.fit == FILL else CLIP_MEAN)


IDENTITY, CLIP_MEAN = (0.0,) * 3, (0.48145466, 0.4578275, 0.40821073)


def test_what_is_left_out_by_default_is_done_where_it_is_asked(tmp_path: Path) -> None:
    """The class of Gemma 4 normalizes nothing, whatever its file has of means."""
    own = {**FILLED, "image_mean": [0.5] * 3}
    assert read(tmp_path, own).mean == IDENTITY
    assert read(tmp_path, {**own, "do_normalize": True}).mean == (0.5,) * 3


@pytest.mark.parametrize(
    ("most", "within"),
    [
        (30 * 16**2, (256, 30 * 16**2, 80)),
        (10**9, (256, 10**6, 1000)),
        (16**2, (256, 256, 16)),
    ],
)
def test_fewer_where_words_need_room(most: int, within: tuple[int, int, int]) -> None:
    found = AnySize(256, 10**6, EDGE, 1000).within(most, 16)
    assert (found.least, found.most, found.edge) == within


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 448}, "says how many pixels"),
        # As of transformers: the class' own numbers stand where there is no size at all.
        ({"size": {"longest_edge": 9000}}, "says how many pixels"),
        ({"size": {"shortest_edge": None, "longest_edge": 9000}}, "says how many pixels"),
        ({"size": {"height": 64, "width": 64}}, "says how many pixels"),
        ({"size": {"min_pixels": 64, "max_pixels": 128}}, "says how many pixels"),
        ({"size": [448, 448]}, "says how many pixels"),
        ({"size": {"longest_edge": 9e3}}, "says how many pixels"),
        ({"size": {"longest_edge": True}}, "says how many pixels"),
        ({"size": {"longest_edge": 3135}}, "says how many pixels"),  # fewer than the fewest
        ({"min_pixels": -1}, "says how many pixels"),
        ({"max_pixels": 1 << 27}, "says how many pixels"),
        ({"do_resize": False}, "cut into whole tokens"),
        ({"do_center_crop": True}, "a step that is not supported"),
        ({**FILLED, "max_soft_tokens": 100}, "says how many pixels"),
        ({**FILLED, "max_soft_tokens": None}, "says how many pixels"),
        ({**FILLED, "patch_size": 0}, "says how many pixels"),
        ({**FILLED, "pooling_kernel_size": "3"}, "says how many pixels"),
        ({**FILLED, "patch_size": 1 << 20}, "says how many pixels"),
        ({**FILLED, "do_resize": False}, "cut into whole tokens"),
        ({**SCALED, "max_pixels": 9999}, "says how many pixels"),
        ({**SCALED, "temporal_patch_size": 0}, "says how many pixels"),
        ({**EDGED, "size": {"height": 64, "width": 64}}, "says how many pixels"),
        ({**EDGED, "size": {"longest_edge": 0}}, "says how many pixels"),
        ({**EDGED, "size": {"longest_edge": 1 << 20}}, "says how many pixels"),
        ({**EDGED, "size": 1024}, "says how many pixels"),
        ({**EDGED, "do_center_crop": True}, "a step that is not supported"),
    ],
)
def test_pixels_in_no_form_that_is_read(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=words):
        read(tmp_path, ANY | settings)
