"""The two sides of a loss: what is measured, and what its derivatives foresee."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lepton_compile.pipeline.mixed.objective import (
    Directions,
    Likelihood,
    Objective,
    Weights,
)
from lepton_compile.pipeline.mixed.sensitivity import Measured, squared_derivatives

WIDTH, ANSWERS, ROWS = 16, 12, 40


class _Model(torch.nn.Module):
    """One linear layer, as scores or as vectors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = torch.nn.Linear(WIDTH, ANSWERS, bias=False)
        self.config = SimpleNamespace()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = 3 * self.linear(x)
        return {"logits": y, "last_hidden_state": y}


def _feeds(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(5)
    return [{"x": draw.normal(size=(1, ROWS, WIDTH)).astype(np.float32)} for _ in range(count)]


def _quiet(_what: str, _done: int, _total: int) -> None: ...


@pytest.mark.parametrize(
    "objective",
    [Likelihood(["logits"]), Directions(), Weights("sum", 1)],
    ids=["kl", "cosine", "sparse"],
)
def test_derivatives_foresee_the_loss_of_a_small_change(objective: Objective) -> None:
    model, feeds = _Model(), _feeds(200)

    def run(feed: Any) -> Any:
        return model(torch.from_numpy(feed["x"]))

    weight = model.linear.weight
    measured = Measured(run, objective, feeds, _quiet)
    assert measured.rows == 200 * (1 if isinstance(objective, Weights) else ROWS)
    assert measured.loss() == pytest.approx(0, abs=2e-5)
    squares = squared_derivatives(model, run, objective, feeds, {"w": weight}, _quiet)["w"].read()
    foreseen, found = 0.0, 0.0
    for seed in range(6):
        change = 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        foreseen += float((torch.from_numpy(squares) * change**2).sum()) / (2 * measured.rows)
        with torch.no_grad():
            weight += change
        found += measured.loss()
        with torch.no_grad():
            weight -= change
    # Crossed terms of changes that are random come to nothing in the mean.
    assert foreseen == pytest.approx(found, rel=0.3)
    assert found > 1e-4


def test_what_was_asked_of_a_model_is_taken_back() -> None:
    model = _Model()
    run = lambda feed: model(torch.from_numpy(feed["x"]))  # noqa: E731
    again = [
        squared_derivatives(
            model, run, Likelihood(["logits"]), _feeds(2), {"w": model.linear.weight}, _quiet
        )["w"].read()
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*again)
    assert model.linear.weight.requires_grad
    assert model.linear.weight.grad is None


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
def test_a_text_is_one_vector(pooling: str) -> None:
    hidden = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 5, 8)).astype(np.float32))
    objective = Directions(pooling)
    kept = objective.keep({"last_hidden_state": hidden})
    assert objective.rows(kept) == 1
    wanted = {"mean": hidden.mean(1), "cls": hidden[:, 0], "max": hidden.amax(1)}
    torch.testing.assert_close(kept, normalize(wanted.get(pooling, hidden[:, -1])))
    assert objective.distance(kept, {"last_hidden_state": 2 * hidden}) == pytest.approx(0, abs=1e-6)
    assert objective.distance(kept, {"last_hidden_state": -hidden}) > 0.3


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_a_sparse_vector_is_what_its_texts_words_score(pooling: str) -> None:
    scores = torch.randn((1, ROWS, ANSWERS), generator=torch.Generator().manual_seed(3))
    objective = Weights(pooling, 2)
    words = scores.relu().log1p().log1p()
    wanted = words.amax(1) if pooling == "max" else words.sum(1)
    torch.testing.assert_close(objective.keep({"logits": scores}), normalize(wanted))


def test_scores_go_back_from_an_answer_that_is_drawn() -> None:
    scores = 3 * torch.randn((1, ROWS, ANSWERS), generator=torch.Generator().manual_seed(2))
    whole, apart = (scores.clone().requires_grad_() for _ in range(2))
    chances = whole.log_softmax(-1)[0]
    same = [torch.Generator().manual_seed(9) for _ in range(2)]
    drawn = torch.multinomial(chances.exp(), 1, generator=same[0])
    chances.gather(1, drawn).sum().backward()
    Likelihood(["logits"]).differentiate({"logits": 1 * apart}, same[1])
    assert torch.equal(whole.grad, apart.grad)


def test_layers_behind_a_pooling_are_part_of_the_vector() -> None:
    """Else they could be rounded at will: nothing measured would move."""
    torch.manual_seed(4)
    dense = torch.nn.Linear(WIDTH, ANSWERS)
    objective, outputs = Directions("mean", dense), {"last_hidden_state": torch.randn(1, 9, WIDTH)}
    with torch.no_grad():
        kept = objective.keep(outputs)
        assert kept.shape == (1, ANSWERS)
        assert objective.distance(kept, outputs) == pytest.approx(0, abs=1e-6)
    objective.differentiate(outputs, torch.Generator().manual_seed(0))
    assert dense.weight.grad is not None
    assert dense.weight.grad.abs().max() > 1e-3
    with torch.no_grad():
        dense.weight[0].neg_()
        assert objective.distance(kept, outputs) > 1e-3
