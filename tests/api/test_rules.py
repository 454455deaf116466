"""A rule that holds for nothing is told: it would change nothing, and nobody would know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

import lepton_compile as lc
from lepton_compile.api.rules import check_rules
from lepton_compile.errors import RecipeError
from lepton_compile.export.onnx_file import import_onnx
from lepton_compile.export.source import Source
from lepton_compile.recipe import Recipe
from tests.export import gguf_files
from tests.small import bert, llama, saved

KEPT = {"match": "*.o_proj.weight", "bits": "none"}


def quantize(match: str, **options: Any) -> dict[str, Any]:
    """Weights in 8 bits with two exceptions, the second for ``match``."""
    return {"algorithm": "rtn", "bits": 8, "rules": [KEPT, {"match": match, "bits": 4}], **options}


def quantize_bert(match: str) -> dict[str, Any]:
    return {"algorithm": "rtn", "bits": 8, "rules": [{"match": match, "bits": 4}]}


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied")
    return saved("LlamaForCausalLM", llama(tie_word_embeddings=True), folder)


def told(call: Any, **options: Any) -> RecipeError:
    with pytest.raises(RecipeError, match="a rule matches no parameter that LlamaFor") as caught:
        call(task="text-generation", **options)
    return caught.value


@pytest.mark.parametrize("call", [lc.plan, lc.build], ids=["plan", "build"])
def test_a_slip_of_the_pen_is_told_with_the_names_most_like_it(
    tied: Path, tmp_path: Path, call: Any
) -> None:
    wrong = quantize("*.v_prj.weight")
    error = told(call, model=str(tied), quantize=wrong, output=tmp_path / "made")
    assert error.where == "quantize.rules[1].match"
    assert error.found == "*.v_prj.weight"
    assert "model.layers.*.self_attn.v_proj.weight" in error.available
    assert "lm_head.weight" in error.available
    assert not (tmp_path / "made").exists()


def test_nothing_is_read_before_it_is_told(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    options = {"model": str(tmp_path), "target": ["ort-cpu", "ort-cuda"]}
    error = told(lc.plan, **options, quantize=quantize("model.layers.7.*"))
    assert error.where == "quantize.rules[1].match"
    own = {"ort-cuda": {"quantize": quantize("?.weight")}}
    error = told(lc.plan, **options, per_target=own)
    assert error.where == "per_target.ort-cuda.quantize.rules[1].match"


@pytest.mark.parametrize("call", [lc.plan, lc.build], ids=["plan", "build"])
@pytest.mark.parametrize("match", ["*norm*", "model.norm.weight", "rotary*"])
def test_what_is_never_quantized_is_told(tied: Path, tmp_path: Path, call: Any, match: str) -> None:
    options = {"model": str(tied), "quantize": quantize(match), "output": tmp_path / "made"}
    with pytest.raises(RecipeError, match="matches only what is never quantized") as caught:
        call(**options)
    assert caught.value.where == "quantize.rules[1].match"
    assert str(caught.value.found).startswith(f"{match}: ")
    assert "lm_head.weight" in caught.value.available or match == "rotary*"
    assert not any("norm" in name for name in caught.value.available)


def test_tables_by_position_and_biases_are_never_quantized(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    for match in ("*position_embeddings*", "*.bias", "*.LayerNorm.*"):
        with pytest.raises(RecipeError, match="never quantized"):
            lc.plan(model=str(tmp_path), task="feature-extraction", quantize=quantize_bert(match))
    for match in ("*embeddings*", "*.value.*"):  # weights are among what they match
        lc.plan(model=str(tmp_path), task="feature-extraction", quantize=quantize_bert(match))


def test_to_leave_alone_what_is_never_quantized_is_no_mistake(tied: Path) -> None:
    rules = [{"match": "*norm*", "bits": "none"}]
    lc.plan(model=str(tied), quantize={"algorithm": "rtn", "bits": 8, "rules": rules})


def test_a_rule_behind_others_that_take_all_is_told(tied: Path) -> None:
    first, second = {"match": "*.0.*", "bits": "none"}, {"match": "*_proj.weight", "bits": 4}
    last = {"match": "*.v_proj.weight", "bits": 8}

    def plan(*rules: dict[str, Any]) -> None:
        lc.plan(model=str(tied), quantize={"algorithm": "rtn", "bits": 4, "rules": [*rules]})

    with pytest.raises(RecipeError, match="a rule never holds") as caught:
        plan(first, second, last)
    assert caught.value.where == "quantize.rules[2].match"
    assert caught.value.available == ("*.0.* (bits: none)", "*_proj.weight (bits: 4)")
    plan(first, last, second)
    plan(first, second, {**last, "bits": 4, "group": 32})  # says the same
    with pytest.raises(RecipeError, match="a rule never holds"):
        plan(first, second, {**last, "bits": 4, "group": 64})


def test_bits_that_are_chosen_leave_no_rule_unread(tied: Path) -> None:
    wrong = {"algorithm": "auto", "rules": [{"match": "v_proj", "bits": 8}]}
    assert told(lc.plan, model=str(tied), quantize=wrong).where == "quantize.rules[0].match"


def test_a_tied_weight_goes_by_one_name(tied: Path) -> None:
    lc.plan(model=str(tied), task="text-generation", quantize=quantize("lm_head.weight"))
    error = told(lc.plan, model=str(tied), quantize=quantize("model.embed_tokens.weight"))
    assert error.hint is not None
    assert error.hint.startswith("model.embed_tokens.weight is tied to lm_head.weight")


def test_files_of_gguf_go_by_the_names_of_the_model(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "m.gguf", "llama", gguf_files.tiny_model("llama"))
    lc.plan(model=str(path), quantize=quantize("model.layers.0.mlp.up_proj.weight"))
    error = told(lc.plan, model=str(path), quantize=quantize("blk.0.ffn_up.weight"))
    assert "model.layers.*.mlp.up_proj.weight" in error.available


def test_files_of_onnx_go_by_their_own_names(tmp_path: Path) -> None:
    x, y = (ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT)) for n in "xy")
    x.shape, y.shape = ir.Shape([1, 2]), ir.Shape([1, 3])
    weight = ir.Value(name="w", const_value=ir.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    node = ir.node("MatMul", [x, weight], outputs=[y], name="m")
    graph = ir.Graph(
        [x], [y], nodes=[node], initializers=[weight], opset_imports={"": 21}, name="g"
    )
    path = tmp_path / "model.onnx"
    ir.save(ir.Model(graph, ir_version=10), path)
    exported = import_onnx(Source(str(path), "onnx", path), None)

    wrong = {"algorithm": "rtn", "bits": 8, "rules": [{"match": "w", "bits": 4}]}
    with pytest.raises(RecipeError) as caught:
        check_rules(Recipe.model_validate({"model": "m", "quantize": wrong}), exported)
    assert caught.value.available == ("w_by_rows",)  # it is stored the other way round
    right = {**wrong, "rules": [{"match": "w_*", "bits": 4}]}
    check_rules(Recipe.model_validate({"model": "m", "quantize": right}), exported)
