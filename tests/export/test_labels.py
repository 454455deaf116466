"""Names of classes, and what their logits become."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TextClassificationPipeline

from lepton_compile.export.labels import labels_of, score_of
from tests.small import bert

IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"
LOGITS = [1.5, -0.5, 0.25]
MADE = {
    "softmax": lambda logits: torch.softmax(logits, -1),
    "sigmoid": torch.sigmoid,
    "none": lambda logits: logits,
}


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (1, None),
        (1, "regression"),
        (1, "multi_label_classification"),
        (3, None),
        (3, "regression"),
        (3, "single_label_classification"),
        (3, "multi_label_classification"),
    ],
)
def test_as_the_pipeline_of_transformers(labels: int, problem: str | None) -> None:
    config = bert(num_labels=labels, problem_type=problem)
    model = SimpleNamespace(config=config)
    pipeline: Any = object.__new__(TextClassificationPipeline)
    pipeline.model = model
    logits = torch.tensor([LOGITS[:labels]])
    found = pipeline.postprocess({"logits": logits}, top_k=None, _legacy=False)
    by_label = {each["label"]: each["score"] for each in found}
    scores = MADE[score_of(config)](logits[0]).tolist()
    names = labels_of(config)
    assert names is not None
    assert {names[str(n)]: score for n, score in enumerate(scores)} == pytest.approx(by_label)


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, "none"),
        ({"sentence_transformers": {"activation_fn": SIGMOID}}, "sigmoid"),
        ({"sbert_ce_default_activation_function": IDENTITY}, "none"),
        ({"sbert_ce_default_activation_function": "own.Function"}, "sigmoid"),
        ({"sentence_transformers": "3.0"}, "sigmoid"),
    ],
)
def test_rerankers(settings: dict[str, Any], scores: str) -> None:
    assert score_of(bert(num_labels=1, **settings)) == scores
    assert score_of(bert(num_labels=3, **settings)) == "softmax"


def test_without_names() -> None:
    assert labels_of(SimpleNamespace()) is None
