"""The text that weights are fitted to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lepton_compile.api.fitting import SHARE, energies_for, hessians_for
from lepton_compile.errors import RecipeError
from lepton_compile.recipe import load_recipe
from tests.passes.quant.rounding import model

TEXT: Any = SimpleNamespace(task="text-generation", how="stamped")  # of what was exported
GPTQ = {"model": "./m", "quantize": {"algorithm": "gptq", "bits": 4}}


def _source(kind: str = "folder") -> Any:
    return SimpleNamespace(kind=kind, tokenizer_folder=lambda: None)


@pytest.mark.parametrize("kind", ["folder", "onnx"])
def test_without_a_tokenizer_there_is_no_text(kind: str) -> None:
    with pytest.raises(RecipeError, match="without a tokenizer") as caught:
        hessians_for(load_recipe(GPTQ), model(), _source(kind), TEXT, lambda *_: None)  # type: ignore[arg-type]
    assert caught.value.where == "quantize.algorithm"


def test_nothing_is_fitted_unless_asked_for() -> None:
    recipe = load_recipe({"model": "./m", "quantize": "int4"})
    step = lambda *_: None  # noqa: E731
    assert hessians_for(recipe, model(), _source(), None, step) is None  # type: ignore[arg-type]


def test_matrices_keep_to_the_memory_that_a_build_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = SimpleNamespace(kind="folder", tokenizer_folder=object)

    def most(**more: Any) -> int:
        recipe = load_recipe({**GPTQ, **more})
        made = hessians_for(recipe, model(), source, TEXT, lambda *_: None)  # type: ignore[arg-type]
        assert made is not None
        return made.most

    whole = most()
    assert most(max_memory=SHARE * (whole - 1)) == whole - 1
    # Nor does a ceiling that is far away let them take more than they do without one.
    monkeypatch.setattr("lepton_compile.pipeline.hessians.BUDGET", whole - 1)
    assert most(max_memory="64GB") == most() == whole - 1


def test_columns_are_weighed_only_where_that_was_asked_for() -> None:
    step = lambda *_: None  # noqa: E731
    nearest = load_recipe({"model": "./m", "quantize": "int4"})
    assert energies_for(nearest, model(), _source(), None, step) is None  # type: ignore[arg-type]
    for name in ("weighted", "awq"):
        asked = load_recipe({"model": "./m", "quantize": {"algorithm": name, "bits": 4}})
        with pytest.raises(RecipeError, match="without a tokenizer") as caught:
            energies_for(asked, model(), _source(), TEXT, step)  # type: ignore[arg-type]
        assert (caught.value.where, caught.value.found) == ("quantize.algorithm", name)
