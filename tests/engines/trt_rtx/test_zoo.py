"""Every architecture of the zoo becomes a plan in fp16 and in bf16.

One capture a model, as in a build for several targets.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lepton_compile.engines.contract import EngineJob
from lepton_compile.engines.tensorrt.plan_header import LENGTH, read_header
from lepton_compile.engines.trt_rtx.build import build
from lepton_compile.errors import PassError
from lepton_compile.export import ExportedModel, resolve
from lepton_compile.export.export import export
from lepton_compile.pipeline import passes_for, run
from lepton_compile.recipe import Recipe, load_recipe
from tests.export.harness import save
from tests.export.zoo import DECODERS, ENCODERS

pytest.importorskip("tensorrt_rtx")

# Two layers, of two kinds where a model has those: the builder's time grows with each.
LENGTH_OF_ALL, LAYERS = 32, 2
PRECISIONS = {"fp16": "HALF", "bf16": "BF16"}

# Attention layers by form; None where the model's own code computes attention.
FORMS: dict[str, dict[str, int] | None] = {
    "llama": {"native": 2},
    "mistral": {"mask": 2},
    "qwen2": {"native": 1, "mask": 1},
    "qwen3": {"native": 2},
    # A softcap takes the plugin, whose heads begin at 32: test_plugin_build.py builds a wider one.
    "gemma2": {"matmul": 2},
    "gemma3": {"mask": 1, "native": 1},
    "phi3": {"mask": 2},
    "gpt2": {"native": 2},
    "gpt2-scaled": {"native": 2},
    "gpt-neox": {"native": 2},
    "gpt-neox-sequential": {"native": 2},
    "olmo2": {"native": 2},
    "cohere": {"native": 2},
    "smollm3": {"native": 2},
    "falcon": {"native": 2},
    "falcon-grouped": {"native": 2},
    "falcon-alibi": {"own": 2},
    "bloom": {"own": 2},
    "gpt-j": {"native": 2},
    "bert": {"encoder": 2},
    "roberta": {"encoder": 2},
    "distilbert": {"encoder": 2},
    "modernbert": {"encoder": 2},
    "mpnet": None,
    "albert": {"encoder": 2},
    "deberta-v2": None,
}
# TensorRT has no form for experts.
MIXTURES = ("mixtral", "qwen3-moe", "gpt-oss")
SLOW = ("falcon-grouped", "gpt-j", "mpnet", "deberta-v2")
# Layers that stay TensorRT's attention: by form, and where the model calls ONNX's own.
FUSED = ("native", "mask", "encoder")


def marked(names: Any) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in names]


def shallow(config: Any) -> Any:
    """The configuration with two layers: the first, and the first that is of another kind."""
    config.num_hidden_layers = LAYERS
    for name in ("layer_types", "no_rope_layers"):
        if kinds := getattr(config, name, None):
            others = [kind for kind in kinds if kind != kinds[0]]
            setattr(config, name, [kinds[0], (others or kinds)[0]])
    return config


def captured(name: str, folder: Path) -> ExportedModel:
    decodes = name in DECODERS
    config = shallow(DECODERS[name][0]() if decodes else ENCODERS[name][0]())
    task = "text-generation" if decodes else "feature-extraction"
    save(lambda: config, task, folder / "model")
    return export(resolve(str(folder / "model"), base=folder), task, length=LENGTH_OF_ALL)


def recipe_for(precision: str) -> Recipe:
    shapes = {"batch": "1..2", "sequence": f"1..{LENGTH_OF_ALL}"}
    return load_recipe(
        {"model": "./model", "target": "trt-rtx", "quantize": precision, "shapes": shapes}
    )


def test_every_model_of_the_zoo_is_here() -> None:
    assert {*FORMS, *MIXTURES} == {*DECODERS, *ENCODERS}


def test_experts_are_refused_by_name(tmp_path: Path) -> None:
    exported = captured("mixtral", tmp_path)
    with pytest.raises(PassError, match="legal-trt") as caught:
        run(
            exported.model,
            passes_for(recipe_for("fp16"), "trt-rtx", length=exported.length),
        )
    assert "Experts" in str(caught.value)


@pytest.mark.parametrize("name", marked(FORMS))
def test_it_becomes_a_plan(name: str, tmp_path: Path) -> None:
    exported = captured(name, tmp_path)
    for precision, dtype in PRECISIONS.items():
        recipe, folder = recipe_for(precision), tmp_path / precision
        model = exported.model.clone()
        run(model, passes_for(recipe, "trt-rtx", length=exported.length))
        folder.mkdir()
        ranges = {"batch": (1, 2), "sequence": (1, exported.length)}
        built = build(EngineJob(model, folder, recipe, ranges, tuple(exported.caches)))
        _check_plan(folder, built.report["version"])
        _check_layers(built.report, name, dtype)
        forms = FORMS[name]
        wanted = {"layers": LAYERS, "forms": forms} if forms else None
        assert built.details["attention"] == wanted
        assert len(built.details["aliases"]) == 2 * len(exported.caches)
        assert len(built.details["profiles"]) == (2 if name in DECODERS else 1)


def _check_plan(folder: Path, version: str) -> None:
    (plan,) = folder.iterdir()
    with plan.open("rb") as file:
        header = read_header(file.read(LENGTH))
    assert header is not None
    assert (header.version, header.portable) == (version, True)


def _check_layers(report: Any, name: str, dtype: str) -> None:
    """Attention, caches and linear layers compute in the type that was asked for."""
    found = Counter((each["type"], each["precision"]) for each in report["layers"])
    caches = 2 * LAYERS if name in DECODERS else 0
    assert found["KV_CACHE_UPDATE", dtype] == caches
    fused = sum(count for form, count in (FORMS[name] or {}).items() if form in FUSED)
    assert found["ATTENTION_INPUT", dtype] == (LAYERS if name == "falcon-alibi" else fused)
    products = {kind: count for kind, count in found.items() if kind[0] == "MATRIX_MULTIPLY"}
    assert set(products) == {("MATRIX_MULTIPLY", dtype)}
