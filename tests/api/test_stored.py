"""``quantize: stored``: as many bits as the checkpoint has."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType as Kind

import lepton_compile as lc
from lepton_compile.errors import RecipeError
from lepton_passes.lowering.ort.rounded_attention import LowerRoundedAttention
from tests.api.test_gguf_integers import stored
from tests.api.test_quantized_sources import error_of, in_mxfp4, logits, nodes_of, quantized
from tests.plugins.cpu_library import needs_library
from tests.small import llama, made

MIXED = {"ffn_down": Kind.Q5_1, "token_embd": Kind.Q8_0, "attn_output": Kind.F16}


def bits_of(artifact: Path) -> Counter[tuple[str, int]]:
    """How many layers and tables have so many bits."""
    found: Counter[tuple[str, int]] = Counter()
    for node in nodes_of(artifact):
        bits = [each.i for each in node.attribute if each.name == "bits"]
        found.update((node.op_type, each) for each in bits)
    return found


@needs_library
def test_a_file_of_several_types(tmp_path: Path) -> None:
    """Q4_K in 4 bits, as it is; Q5_1 and Q8_0 in 8; what is not quantized as it was."""
    path, model = stored(tmp_path, "llama", Kind.Q4_K, **MIXED)
    expected = logits(model)
    recipe = {"kernels": "native", "passes": {"disable": [LowerRoundedAttention.name]}}
    error = error_of(path, tmp_path / "kept", expected, quantize="stored", **recipe)
    assert error < 0.01
    found = bits_of(tmp_path / "kept")
    # Query, key and value are one, and so are gate and up.
    assert found == {("QuantizedLinear", 4): 2 * 2 + 1, ("QuantizedLinear", 8): 2}
    manifest = json.loads((tmp_path / "kept" / "manifest.json").read_text())
    assert manifest["engines"][0]["precision"] == "stored"
    assert lc.rebuild(tmp_path / "kept").manifest.digest() == manifest["digest"]
    rounded = error_of(path, tmp_path / "four", expected, quantize="int4", **recipe)
    assert rounded > 4 * error


@needs_library
def test_a_table_with_offsets_takes_8_bits(tmp_path: Path) -> None:
    path, model = stored(tmp_path, "gemma3", Kind.Q4_1)
    error = error_of(path, tmp_path / "out", logits(model), quantize="stored", kernels="native")
    assert error < 0.02
    found = bits_of(tmp_path / "out")
    assert found["QuantizedEmbedding", 8] == 1
    assert found["QuantizedLinear", 8] == 1
    assert found["QuantizedLinear", 4] > 0


@needs_library
@pytest.mark.parametrize("kind", ["a file", "a folder"])
@pytest.mark.parametrize("word", ["stored", "int4"])
def test_experts_keep_floats_of_4_bits(kind: str, word: str, tmp_path: Path) -> None:
    """GPT-OSS as it is published, in both forms that it is."""
    if kind == "a file":
        path, model = stored(tmp_path, "gpt-oss", Kind.F16, _exps=Kind.MXFP4)
    else:
        path = tmp_path / "model"
        model = in_mxfp4(path)
    rules = [{"match": name, "bits": "none"} for name in ("*.self_attn.*", "lm_head.*")]
    own = {"algorithm": "stored"} if word == "stored" else {"bits": 4, "embedding": "none"}
    recipe: dict[str, Any] = {"quantize": {**own, "rules": rules}, "kernels": "native"}
    assert error_of(path, tmp_path / "kept", logits(model), **recipe) < 0.01
    mixtures = [n for n in nodes_of(tmp_path / "kept") if n.op_type == "QuantizedExperts"]
    given = [{a.name: a.i for a in node.attribute} for node in mixtures]
    assert given
    assert {(each["bits"], each["floats"]) for each in given} == {(4, 1)}


def test_without_kernels_for_offsets_all_takes_8_bits(tmp_path: Path) -> None:
    path, model = stored(tmp_path, "llama", Kind.Q4_1)
    error = error_of(path, tmp_path / "out", logits(model), quantize="stored", kernels="builtin")
    assert error < 0.02
    assert {bits for _, bits in bits_of(tmp_path / "out")} == {8}


@pytest.mark.parametrize(
    ("form", "bits"), [("awq", 4), ("gptq", 4), ("fp8 in blocks", 8), ("nvfp4", 8)]
)
def test_folders_that_are_quantized_already(form: str, bits: int, tmp_path: Path) -> None:
    """Whose heads and tables are not."""
    folder = tmp_path / "model"
    model = quantized(folder, form, llama(vocab_size=260))
    error = error_of(folder, tmp_path / "out", logits(model), quantize="stored")
    assert error < 0.02
    assert {each for _, each in bits_of(tmp_path / "out")} == {bits}


@needs_library
def test_rules_come_first(tmp_path: Path) -> None:
    path, _ = stored(tmp_path, "llama", Kind.Q4_K)
    rules = [{"match": "*.down_proj.weight", "bits": "none"}]
    precision = {"algorithm": "stored", "embedding": "none", "rules": rules}
    options: dict[str, Any] = {"quantize": precision, "kernels": "native"}
    built = lc.build(model=str(path), output=tmp_path / "out", verify=False, **options)
    assert bits_of(built.path) == {("QuantizedLinear", 4): 2 * 3 + 1}  # the head, too


def test_refuses_what_is_not_quantized(tmp_path: Path) -> None:
    made("LlamaForCausalLM", llama()).save_pretrained(tmp_path / "model")
    with pytest.raises(RecipeError, match="nothing in the checkpoint is quantized") as caught:
        lc.build(model=str(tmp_path / "model"), quantize="stored", output=tmp_path / "out")
    assert caught.value.where == "--quantize (in Python: quantize=…)"
    assert caught.value.found == "stored"
    assert not (tmp_path / "out").exists()


def test_a_plan_counts_8_bits(tmp_path: Path) -> None:
    path, _ = stored(tmp_path, "llama", Kind.Q4_1)
    plan = lc.plan(model=str(path), quantize="stored")
    assert "a plan does not look at how weights are stored: this is 8 bits for all" in plan.notes


@pytest.mark.parametrize(("kind", "wanted"), [(Kind.Q4_1, True), (Kind.Q8_0, False)])
def test_a_plan_says_that_it_sees_no_offsets(kind: Kind, wanted: bool, tmp_path: Path) -> None:
    path, _ = stored(tmp_path, "llama", kind)
    said = "layers that keep zero points or offsets of the checkpoint are planned without them"
    assert (said in lc.plan(model=str(path), quantize="int4").notes) == wanted


def test_no_group_beside_it(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="group is for bits: 4"):
        lc.plan(model=str(tmp_path), quantize={"algorithm": "stored", "group": 64})


@needs_library
@pytest.mark.parametrize(
    ("beside", "wanted"),
    [
        ({}, {4: 3}),  # of the first layer query, key and value as one, and the output; the head
        ({"bits": 8}, {4: 3, 8: 2}),  # gate and up as one, and down
        ({"bits": 4, "group": 64}, {4: 3 + 2}),
    ],
)
def test_bits_are_for_what_is_not_quantized(
    beside: dict[str, Any], wanted: dict[int, int], tmp_path: Path
) -> None:
    path, _ = stored(tmp_path, "llama", Kind.Q4_K, ffn_=Kind.F16)
    precision = {"algorithm": "stored", "rules": [{"match": "*.layers.1.*", "bits": "none"}]}
    options: dict[str, Any] = {"quantize": {**precision, **beside}, "kernels": "native"}
    built = lc.build(model=str(path), output=tmp_path / "out", verify=False, **options)
    assert {bits: count for (_, bits), count in bits_of(built.path).items()} == wanted
    manifest = json.loads((built.path / "manifest.json").read_text())
    assert manifest["engines"][0]["precision"] == "stored"


def test_they_are_what_was_stored(tmp_path: Path) -> None:
    """The logits are those of the file to what activations in 8 bits cost, whichever bits."""
    path, model = stored(tmp_path, "qwen3", Kind.Q8_0, ffn_up=Kind.Q4_0)
    assert error_of(path, tmp_path / "out", logits(model), quantize="stored") < 0.01
