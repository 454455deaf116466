"""The tower that reads of a model with two: its vectors are those that the whole makes of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lepton_compile.errors import ExportError, RecipeError
from lepton_compile.export import Pooling
from lepton_compile.export.task_names import infer_task

from .harness import FP32, compiled, relative_error, run

TASK, OWN = "feature-extraction", Pooling("own", normalize=False)
END = 5
_SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_SEES = {**_SIZES, "image_size": 32, "patch_size": 8}
_CLIP = {**_SIZES, "max_position_embeddings": 20, "eos_token_id": END, "pad_token_id": 0}
_SIGLIP = {**_SIZES, "max_position_embeddings": 16, "projection_size": 32, "pad_token_id": 1}
# Class of the whole -> the model itself says 24, its towers another width.
WHOLES: dict[str, dict[str, Any]] = {
    "CLIP": {"text_config": {**_CLIP, "projection_dim": 8}, "projection_dim": 24},
    "MetaClip2": {"text_config": {**_CLIP, "projection_dim": 8}, "projection_dim": 24},
    "Siglip": {"text_config": _SIGLIP},
    "Siglip2": {"text_config": _SIGLIP},
}


def whole(kind: str, folder: Path) -> Any:
    """A random model of two towers, saved."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vision_config=_SEES, **WHOLES[kind])
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    return model


def texts(kind: str) -> dict[str, np.ndarray]:
    """Three texts, one of them shorter, as the model's own processor gives them."""
    ids = np.random.default_rng(0).integers(6, 99, (3, 16))
    if kind.startswith("Siglip"):
        ids[1, 9:] = 1
        return {"input_ids": ids}
    ids[:, -1], ids[1, 9], ids[1, 10:] = END, END, 0
    mask = np.ones_like(ids)
    mask[1, 10:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", list(WHOLES))
def test_vectors_are_those_of_the_whole(kind: str, normalize: bool, tmp_path: Path) -> None:
    model, given = whole(kind, tmp_path), texts(kind)
    exported, session = compiled(tmp_path, TASK, pooling=Pooling("own", normalize))
    with torch.no_grad():
        wanted = model.get_text_features(
            **{name: torch.from_numpy(array) for name, array in given.items()}
        ).pooler_output
    if normalize:
        wanted = torch.nn.functional.normalize(wanted, dim=-1)
    assert [value.name for value in session.get_inputs()] == list(given)
    found = run(session, given)
    assert list(found) == ["last_hidden_state", "sentence_embedding"]
    assert relative_error(found["sentence_embedding"], wanted.numpy()) <= FP32
    assert (exported.how, exported.padded) == ("stamped", kind.startswith("Siglip"))
    assert exported.notes[0] == f"of {kind}Model the text tower alone"


@pytest.mark.parametrize("name", ["CLIPTextModelWithProjection", "CLIPTextModel"])
def test_a_tower_that_was_saved_alone_keeps_what_it_has(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(**_CLIP, projection_dim=8)
    model = getattr(transformers, name)(config).eval()
    model.save_pretrained(tmp_path)
    exported, session = compiled(tmp_path, TASK, pooling=OWN)
    given = texts("CLIP")
    with torch.no_grad():
        found = model(**{name: torch.from_numpy(array) for name, array in given.items()})
    wanted = found["text_embeds" if name.endswith("Projection") else "pooler_output"].numpy()
    assert wanted.shape[1] == (8 if name.endswith("Projection") else 32)
    assert relative_error(run(session, given)["sentence_embedding"], wanted) <= FP32
    assert exported.architecture == name


def test_hidden_states_alone_are_given_where_no_vector_is_asked_for(tmp_path: Path) -> None:
    whole("CLIP", tmp_path)
    _, session = compiled(tmp_path, TASK)
    assert [value.name for value in session.get_outputs()] == ["last_hidden_state"]


def test_padding_that_is_read_cannot_be_left_out(tmp_path: Path) -> None:
    whole("Siglip", tmp_path)
    with pytest.raises(RecipeError, match="padded to one length") as caught:
        compiled(tmp_path, TASK, pooling=OWN, length=12)
    assert caught.value.available == ("16",)
    with pytest.raises(ExportError, match="this pooling is not supported") as refused:
        compiled(tmp_path, TASK, pooling=Pooling("mean", normalize=False))
    assert refused.value.available == ("none", "auto")


def test_other_models_of_two_towers_are_refused_by_name(tmp_path: Path) -> None:
    config = transformers.ChineseCLIPConfig(text_config=_SIZES, vision_config=_SEES)
    transformers.ChineseCLIPModel(config).save_pretrained(tmp_path)
    with pytest.raises(ExportError, match="makes of texts cannot be compiled") as caught:
        compiled(tmp_path, TASK)
    assert caught.value.found == "ChineseCLIPModel"
    assert caught.value.hint is not None
    assert "image-feature-extraction" in caught.value.hint


def test_of_two_towers_the_task_is_to_be_named() -> None:
    with pytest.raises(ExportError, match="for texts and for pictures") as caught:
        infer_task("CLIPModel")
    assert caught.value.available == (TASK, "image-feature-extraction")
    assert infer_task("CLIPTextModelWithProjection") == TASK
