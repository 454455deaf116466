"""Binding parameters to tensors under transformers' conventions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers

from lepton_compile.errors import CheckpointError
from lepton_compile.export import resolve
from lepton_compile.export.checkpoint import SafetensorsCheckpoint, TensorInfo
from lepton_compile.export.checkpoint.names import summarize
from lepton_compile.export.export import export
from lepton_compile.export.weights import bind
from lepton_passes.tensors import StreamedTensor
from tests.small import bert, made, saved


class Listed:
    """A checkpoint of names and shapes; every tensor holds ones."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        self.infos = {
            name.replace("__", "."): TensorInfo(ir.DataType.FLOAT, s) for name, s in shapes.items()
        }

    def names(self) -> Mapping[str, TensorInfo]:
        return self.infos

    def files(self) -> tuple[Path, ...]:
        return (Path("model.safetensors"),)

    def tensor(self, name: str) -> StreamedTensor:
        shape = self.infos[name].shape
        return StreamedTensor(
            name,
            ir.DataType.FLOAT,
            shape,
            lambda start, stop: np.ones((stop - start, *shape[1:]), np.float32),
        )


def stored(parameters: dict[str, tuple[int, ...]], checkpoint: Listed, **options: object) -> dict:
    return bind(parameters, checkpoint, **options).stored  # type: ignore[arg-type]


def test_names_that_agree() -> None:
    assert stored({"a.weight": (2, 3)}, Listed(a__weight=(2, 3))) == {"a.weight": "a.weight"}


def test_prefix_only_in_the_model() -> None:
    found = stored({"bert.a.weight": (2,)}, Listed(a__weight=(2,)), prefix="bert")
    assert found == {"bert.a.weight": "a.weight"}


def test_prefix_only_in_the_checkpoint() -> None:
    found = stored({"a.weight": (2,)}, Listed(bert__a__weight=(2,)), prefix="bert")
    assert found == {"a.weight": "bert.a.weight"}


def test_gamma_and_beta() -> None:
    found = stored(
        {"LayerNorm.weight": (2,), "LayerNorm.bias": (2,)},
        Listed(LayerNorm__gamma=(2,), LayerNorm__beta=(2,)),
    )
    assert found == {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


@pytest.mark.parametrize("present", ["lm_head.weight", "model.embed.weight"])
def test_a_tied_weight_is_stored_under_either_name(present: str) -> None:
    parameters = {"lm_head.weight": (4, 2), "model.embed.weight": (4, 2)}
    checkpoint = Listed(**{present.replace(".", "__"): (4, 2)})
    found = stored(parameters, checkpoint, tied={"lm_head.weight": "model.embed.weight"})
    assert found == dict.fromkeys(parameters, present)


def test_renames_come_before_everything() -> None:
    found = stored(
        {"new.weight": (2,)}, Listed(old__weight=(2,)), rename=lambda n: n.replace("old", "new")
    )
    assert found == {"new.weight": "old.weight"}


def test_heads_of_another_task_are_noted() -> None:
    checkpoint = Listed(
        bert__a=(2,), classifier__w=(3,), cls__bias=(9,), bert__pooler__dense__bias=(2,)
    )
    binding = bind({"bert.a": (2,), "classifier.w": (3,)}, checkpoint, prefix="bert")
    assert binding.unused == ("cls.bias", "bert.pooler.dense.bias")
    assert bind({"a": (2,)}, checkpoint, prefix="bert").unused == ("classifier.w", *binding.unused)


def test_computed_buffers_are_not_extra() -> None:
    binding = bind(
        {"embeddings.w": (2,)}, Listed(embeddings__w=(2,), embeddings__position_ids=(1, 8))
    )
    assert binding.unused == ()


def test_ignored_parameters_may_be_missing() -> None:
    binding = bind({"a": (2,), "pooler.w": (2,)}, Listed(a=(2,)), ignore=[r"^pooler\."])
    assert set(binding) == {"a"}


def test_everything_that_does_not_fit_is_in_one_error() -> None:
    parameters = {f"layers.{n}.w": (2, 2) for n in range(4)} | {"norm.weight": (2,), "out.w": (3,)}
    checkpoint = Listed(
        layers__0__w=(2, 2),
        layers__1__w=(2, 3),
        layers__9__w=(2, 2),
        norm__weigth=(2,),
        out__w=(3,),
    )
    with pytest.raises(CheckpointError) as caught:
        bind(parameters, checkpoint)
    found = caught.value.found or ""
    assert "3 missing: layers.{2..3}.w, norm.weight" in found
    assert "2 unexpected: layers.9.w, norm.weigth" in found
    assert "layers.1.w: the model has 2x2, the file 2x3" in found
    assert any("norm.weigth (for norm.weight)" in text for text in caught.value.available)


def test_a_misspelt_part_is_shown_beside_what_is_missing() -> None:
    parameters = {"model.a": (2,), "lm_head.weight": (3,)}
    checkpoint = Listed(model__a=(2,), lm_heed__weight=(3,), cls__bias=(9,))
    with pytest.raises(CheckpointError) as caught:
        bind(parameters, checkpoint)
    assert caught.value.found == ("1 missing: lm_head.weight; 2 not used: lm_heed.weight, cls.bias")
    assert caught.value.available == ("lm_heed.weight (for lm_head.weight)",)


def test_tensors_without_a_use_are_named(tmp_path: Path) -> None:
    saved("BertForMaskedLM", bert(), tmp_path)
    exported = export(resolve(str(tmp_path), tmp_path), "feature-extraction")
    (note,) = [note for note in exported.notes if "not used" in note]
    assert "cls.predictions.transform.dense.weight" in note


def test_names_fold_without_losing_any() -> None:
    names = ["a.0.w", "a.1.w", "a.2.w", "b.3.w", "a.7.x", "a.9.x", "c"]
    assert summarize(names) == ["a.{0..2}.w", "b.3.w", "a.{7,9}.x", "c"]


@pytest.mark.parametrize("max_shard", ["1GB", "100KB"])
def test_a_saved_model_binds_to_its_encoder(max_shard: str, tmp_path: Path) -> None:
    config = bert()
    whole = made("BertForPreTraining", config)
    whole.save_pretrained(tmp_path, max_shard_size=max_shard)
    checkpoint = SafetensorsCheckpoint(tmp_path)
    assert (len(checkpoint.files()) > 1) == (max_shard == "100KB")
    with torch.device("meta"):
        model = transformers.BertModel(config)
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    binding = bind(shapes, checkpoint, prefix=model.base_model_prefix)
    assert all(name.startswith("cls.") for name in binding.unused)
    for name, parameter in whole.bert.state_dict().items():
        np.testing.assert_array_equal(binding[name].numpy(), parameter.numpy(), err_msg=name)
