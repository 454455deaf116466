"""Every encoder of the zoo, for every task: the unlowered graph equals PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lepton_compile.errors import ExportError
from lepton_compile.export import Pooling
from lepton_compile.export.task_names import AUTO_CLASSES

from .harness import FP32, compiled, padded, relative_error, run, save
from .zoo import DECODERS, EMBEDDERS, ENCODERS, HEADS, MORE_ENCODERS

# Those of other embeddings are nothing without a pooling: tests/api has them.
_OTHERS = ("text-generation", "text2text-generation", "automatic-speech-recognition", "image-")
TASKS = [t for t in AUTO_CLASSES if not t.startswith(_OTHERS) and not t.endswith("-embedding")]
# Heads with two or three outputs near zero have a small range to be relative to.
SMALL_HEAD = 1e-4


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", list(ENCODERS))
def test_equals_pytorch(name: str, task: str, tmp_path: Path) -> None:
    config, how = ENCODERS[name]
    assert _compared(config, task, tmp_path) == how


@pytest.mark.parametrize("name", list(MORE_ENCODERS))
def test_more_of_them_equal_pytorch(name: str, tmp_path: Path) -> None:
    config, how = MORE_ENCODERS[name]
    assert _compared(config, "feature-extraction", tmp_path) == how


@pytest.mark.parametrize(("name", "task"), HEADS)
def test_heads_on_decoders_equal_pytorch(name: str, task: str, tmp_path: Path) -> None:
    def config() -> Any:
        made = DECODERS[name][0]()
        made.pad_token_id = 0  # the last token that is none decides
        return made

    assert _compared(config, task, tmp_path) == "stamped"


def _compared(config: Callable[[], Any], task: str, folder: Path) -> str:
    """How the model was captured; its outputs are PyTorch's."""
    model = save(config, task, folder)
    exported, session = compiled(folder, task)
    ids, mask = padded(2, 12, "right")
    ids = np.where(mask, ids, 0)
    feeds = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in [i.name for i in session.get_inputs()]:
        feeds["token_type_ids"] = np.random.default_rng(1).integers(0, 2, ids.shape)
    with torch.no_grad():
        expected = model(**{k: torch.from_numpy(v) for k, v in feeds.items()})
    real = mask.astype(bool)
    for output, found in run(session, feeds).items():
        wanted = expected[output].numpy()
        per_token = wanted.shape[:2] == mask.shape
        pair = (found[real], wanted[real]) if per_token else (found, wanted)
        assert relative_error(*pair) <= (FP32 if output == "last_hidden_state" else SMALL_HEAD)
    return exported.how


@pytest.mark.parametrize("kind", ["mean", "cls", "max", "lasttoken"])
def test_pooling_inside_the_graph(kind: str, tmp_path: Path) -> None:
    model = save(ENCODERS["bert"][0], "feature-extraction", tmp_path)
    _, session = compiled(tmp_path, "feature-extraction", pooling=Pooling(kind, normalize=True))
    ids, mask = padded(2, 12, "right")
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    with torch.no_grad():
        hidden = model(
            **{k: torch.from_numpy(v) for k, v in feeds.items()}
        ).last_hidden_state.numpy()
    rows = [row[keep.astype(bool)] for row, keep in zip(hidden, mask, strict=True)]
    pooled = np.stack(
        [{"mean": r.mean(0), "cls": r[0], "max": r.max(0), "lasttoken": r[-1]}[kind] for r in rows]
    )
    pooled /= np.linalg.norm(pooled, axis=-1, keepdims=True)
    found = run(session, feeds)["sentence_embedding"]
    np.testing.assert_allclose(found, pooled, atol=2e-6)


@pytest.mark.parametrize("name", list(EMBEDDERS))
def test_decoders_embed_by_their_last_token(name: str, tmp_path: Path) -> None:
    config, how = EMBEDDERS[name]
    model = save(config, "feature-extraction", tmp_path)
    pooling = Pooling("lasttoken", normalize=True)
    exported, session = compiled(tmp_path, "feature-extraction", pooling=pooling)
    assert (exported.how, exported.caches) == (how, [])
    for side in ("none", "right", "left"):
        ids, mask = padded(2, 12, side)
        feeds = {"input_ids": ids, "attention_mask": mask}
        with torch.no_grad():
            hidden = model(**{k: torch.from_numpy(v) for k, v in feeds.items()}).last_hidden_state
        found, real = run(session, feeds), mask.astype(bool)
        wanted = hidden.numpy()
        assert relative_error(found["last_hidden_state"][real], wanted[real]) <= FP32
        last = np.stack([row[keep][-1] for row, keep in zip(wanted, real, strict=True)])
        last /= np.linalg.norm(last, axis=-1, keepdims=True)
        np.testing.assert_allclose(found["sentence_embedding"], last, atol=2e-6)


def test_the_reading_half_of_a_whole_model(tmp_path: Path) -> None:
    whole = transformers.T5ForConditionalGeneration(MORE_ENCODERS["t5"][0]()).eval()
    whole.save_pretrained(tmp_path)
    exported, session = compiled(tmp_path, "feature-extraction")
    assert exported.architecture == "T5EncoderModel"
    assert "attention is given more than is captured (position_bias)" in " ".join(exported.notes)
    ids, mask = padded(2, 12, "right")
    feeds = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        wanted = whole.encoder(**{k: torch.from_numpy(v) for k, v in feeds.items()})
    real = mask.astype(bool)
    found = run(session, feeds)["last_hidden_state"]
    assert relative_error(found[real], wanted.last_hidden_state.numpy()[real]) <= FP32


def test_an_unknown_pooling_is_refused_at_once(tmp_path: Path) -> None:
    save(ENCODERS["bert"][0], "feature-extraction", tmp_path)
    with pytest.raises(ExportError, match="pooling is not supported") as caught:
        compiled(tmp_path, "feature-extraction", pooling=Pooling("median", normalize=False))
    assert caught.value.found == "median"
    assert "lasttoken" in caught.value.available


def test_batch_and_length_are_dynamic(tmp_path: Path) -> None:
    save(ENCODERS["bert"][0], "feature-extraction", tmp_path)
    _, session = compiled(tmp_path, "feature-extraction")
    for batch, length in [(1, 1), (1, 64), (7, 3)]:
        ids = np.ones((batch, length), np.int64)
        out = run(session, {"input_ids": ids, "attention_mask": ids, "token_type_ids": 0 * ids})
        assert out["last_hidden_state"].shape == (batch, length, 32)


@pytest.mark.parametrize(
    ("task", "head", "pooling"),
    [
        ("sparse-embedding", "fill-mask", None),
        ("sparse-embedding", "fill-mask", Pooling("mean", normalize=False, logarithms=1)),
        ("multi-vector-embedding", "feature-extraction", None),
        ("multi-vector-embedding", "feature-extraction", Pooling("mean", normalize=True)),
    ],
)
def test_an_embedding_of_another_kind_has_poolings_of_its_own(
    task: str, head: str, pooling: Pooling | None, tmp_path: Path
) -> None:
    save(ENCODERS["bert"][0], head, tmp_path)
    with pytest.raises(ExportError, match="pooling is not supported"):
        compiled(tmp_path, task, pooling=pooling)
