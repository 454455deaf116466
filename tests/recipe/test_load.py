"""Recipes from files, names and data."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from lepton_compile.errors import RecipeError
from lepton_compile.recipe import Recipe, load_recipe, parse_override

FULL = """\
model: ./model
task: text-generation
target: [ort-cpu, trt]
quantize:
  algorithm: rtn
  bits: 4
  group: 64
  embedding: int8
  rules:
    - {match: "lm_head.*", bits: 8}
    - match: "*.down_proj.weight"
      bits: none
shapes: {batch: 1..8, sequence: [1, 4096]}
verify: {text: sample.txt, tokens: 64}
gates: {perplexity: +6%, max_error: 0.01, argmax: 99%}
passes: {disable: [fuse-gelu], expect: {attention: 18}}
pooling: none
normalize: false
max_memory: 3GB
output: out/here
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "r.yaml").write_text(FULL)
    return load_recipe(tmp_path / "r.yaml")


def test_every_key_arrives(recipe: Recipe, tmp_path: Path) -> None:
    assert recipe.base == tmp_path
    assert recipe.target == ("ort-cpu", "trt")
    assert (recipe.quantize.format, recipe.quantize.group) == ("int4", 64)
    assert recipe.shapes.batch == (1, 8)
    assert recipe.shapes.sequence == (1, 4096)
    assert (recipe.verify.enabled, recipe.verify.text) == (True, "sample.txt")
    assert recipe.gates.perplexity == pytest.approx(0.06)
    assert recipe.gates.argmax == pytest.approx(0.99)
    assert recipe.gates.cosine is None
    assert recipe.passes.disable == ("fuse-gelu",)
    assert recipe.passes.expect == {"attention": 18}
    assert recipe.normalize is False
    assert recipe.max_memory == 3_000_000_000


def test_defaults() -> None:
    recipe = load_recipe({"model": "m"})
    assert recipe.base == Path.cwd()
    assert recipe.target == ("ort-cpu",)
    assert recipe.quantize.format == "none"
    assert recipe.shapes.batch == (1, 64)
    assert recipe.shapes.sequence is None
    assert recipe.verify.enabled
    assert recipe.check
    assert not recipe.trust_remote_code
    assert recipe.pooling == "auto"


def test_a_recipe_cannot_be_changed(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipe.model = "other"  # type: ignore[misc]


def test_rules_come_before_the_rest(recipe: Recipe) -> None:
    quantize = recipe.quantize
    assert quantize.weight("model.layers.0.mlp.up_proj.weight") == (4, 64)
    assert quantize.weight("model.layers.0.mlp.down_proj.weight") is None
    assert quantize.weight("lm_head.weight", embedding=True) == (8, None)
    assert quantize.weight("model.embed_tokens.weight", embedding=True) == (8, None)


@pytest.mark.parametrize(
    ("word", "expected"), [("none", None), ("int8", (8, None)), ("int4", (4, 32))]
)
def test_one_word_precisions(word: str, expected: tuple[int, int | None] | None) -> None:
    quantize = load_recipe({"model": "m", "quantize": word}).quantize
    assert quantize.format == word
    assert quantize.weight("w") == quantize.weight("e", embedding=True) == expected


TENSORRT = {"model": "m", "target": "trt-rtx"}


def test_rooms_of_a_cache_say_how_long_a_sequence_is() -> None:
    shapes = load_recipe({**TENSORRT, "shapes": {"cache": [512, 2048]}}).shapes
    assert (shapes.cache, shapes.sequence) == ((512, 2048), (1, 2048))
    both = {"cache": [512, 2048], "sequence": "8..2048"}
    assert load_recipe({**TENSORRT, "shapes": both}).shapes.sequence == (8, 2048)
    assert load_recipe({"model": "m"}).shapes.cache == ()


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"cache": [2048, 512]}, "each larger than the last"),
        ({"cache": [512, 512]}, "each larger than the last"),
        ({"cache": [1, 512]}, "from 2 on"),
        ({"cache": [512, 2048], "sequence": "1..4096"}, "is 2048, sequence ends at 4096"),
        ({"cache": ["a"]}, "shapes.cache"),
        ({"cache": 512}, "shapes.cache"),
    ],
)
def test_rooms_that_make_no_sense(shapes: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe({"model": "m", "shapes": shapes})


def test_a_cache_alone_leaves_weights_as_they_are() -> None:
    quantize = load_recipe({"model": "m", "quantize": {"cache": "int8"}}).quantize
    assert (quantize.format, quantize.cache, quantize.weight("w")) == ("none", "int8", None)
    both = load_recipe({"model": "m", "quantize": {"bits": 4, "cache": "fp8"}}).quantize
    assert (both.format, both.cache) == ("int4", "fp8")
    with pytest.raises(RecipeError, match=r"(?s)quantize\.cache.*same.*int8.*fp8"):
        load_recipe({"model": "m", "quantize": {"cache": "int4"}})


@pytest.mark.parametrize("word", ["fp16", "bf16", "fp8"])
def test_precisions_of_other_targets(word: str) -> None:
    assert load_recipe({"model": "m", "target": "trt", "quantize": word}).quantize.format == word
    with pytest.raises(RecipeError, match="ort-cpu cannot be built") as caught:
        load_recipe({"model": "m", "target": ["trt", "ort-cpu"], "quantize": word})
    assert caught.value.available == ("none", "int8", "int4", "auto", "stored")


def test_auto_and_weighted_say_how_bits_come_about() -> None:
    auto = load_recipe({"model": "m", "quantize": "auto"}).quantize
    assert (auto.format, auto.bits) == ("auto", None)
    # Until something was measured.
    assert auto.weight("w") == auto.weight("table", embedding=True) == (8, None)
    rules = [{"match": "a.*", "bits": "none"}]
    ruled = load_recipe(
        {"model": "m", "quantize": {"algorithm": "auto", "embedding": "int4", "rules": rules}}
    ).quantize
    assert (ruled.weight("a.b"), ruled.weight("t", embedding=True)) == (None, (4, 32))
    assert ruled.says("a.b")
    assert ruled.says("t", embedding=True)
    assert not ruled.says("t")
    weighted = {"algorithm": "weighted", "bits": 4, "group": 64}
    assert load_recipe({"model": "m", "quantize": weighted}).quantize.weight("w") == (4, 64)
    with pytest.raises(RecipeError, match="weighted needs bits"):
        load_recipe({"model": "m", "quantize": {"algorithm": "weighted"}})
    with pytest.raises(RecipeError, match="bits is for algorithm"):
        load_recipe({"model": "m", "quantize": {"algorithm": "auto", "bits": 4}})


def test_overrides_open_a_one_word_precision(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model: m\nquantize: int4\n")
    overrides = dict([parse_override("quantize.group=128"), parse_override("shapes.batch=1..2")])
    recipe = load_recipe(tmp_path / "r.yaml", overrides)
    assert (recipe.quantize.bits, recipe.quantize.group) == (4, 128)
    assert recipe.shapes.batch == (1, 2)


def test_an_overridden_path_starts_where_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text("model: m\n")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    recipe = load_recipe(tmp_path / "r.yaml", {"model": "./other"})
    assert recipe.base / recipe.model == tmp_path / "work" / "other"
    for elsewhere in ("hf:a/b", "package:a/b", "https://huggingface.co/a/b"):
        assert load_recipe(tmp_path / "r.yaml", {"model": elsewhere}).model == elsewhere


TWO = {"model": "m", "target": ["ort-cpu", "trt-rtx"], "quantize": "int8"}


def test_a_target_may_have_its_own_precision() -> None:
    own = {"quantize": "fp16", "compute_capabilities": [8.9], "gates": {"cosine": 0.999}}
    recipe = load_recipe({**TWO, "per_target": {"trt-rtx": own}})
    assert recipe.for_target("ort-cpu") is recipe
    seen = recipe.for_target("trt-rtx")
    assert (seen.quantize.format, seen.compute_capabilities) == ("fp16", ("8.9",))
    assert seen.gates.cosine == 0.999
    assert (seen.attention, seen.base, seen.target) == ("auto", recipe.base, recipe.target)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ([8.6, 8.9], ("8.6", "8.9")),
        ([12, 9], ("12.0", "9.0")),
        ([89, "sm_120"], ("89", "sm_120")),  # which are no capabilities, as others tell
    ],
)
def test_gpus_may_be_whole_numbers(given: list[object], read: tuple[str, ...]) -> None:
    recipe = load_recipe({**TENSORRT, "compute_capabilities": given})
    assert recipe.compute_capabilities == read
    with pytest.raises(RecipeError, match="takes text"):
        load_recipe({**TENSORRT, "compute_capabilities": [True]})


def test_a_pass_that_is_left_out_may_be_expected_not_to_fire(tmp_path: Path) -> None:
    said = {"disable": ["fuse-gelu"], "expect": {"fuse-gelu": 0}}
    assert load_recipe({"model": "m", "passes": said}).passes.expect == {"fuse-gelu": 0}
    (tmp_path / "r.yaml").write_text("model: m\npasses: {expect: {fuse-gelu: 2}}\n")
    with pytest.raises(RecipeError, match="leaves out 'fuse-gelu'") as caught:
        load_recipe(tmp_path / "r.yaml", {"passes.disable": ["fuse-gelu"]})
    assert caught.value.where == f"{tmp_path / 'r.yaml'}:2"


@pytest.mark.parametrize(
    ("per_target", "words"),
    [
        ({"trt": {"quantize": "fp16"}}, "trt is no target of this recipe"),
        ({"trt-rtx": {"quantise": "fp16"}}, "Did you mean 'quantize'?"),
        ({"trt-rtx": {"attention": "natve"}}, "Did you mean 'native'?"),
        ({"trtrtx": {}}, "Did you mean 'trt-rtx'?"),
        ({"ort-cpu": {"quantize": "fp16"}}, "ort-cpu cannot be built in this precision"),
    ],
)
def test_mistakes_in_what_a_target_has(per_target: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe({**TWO, "per_target": per_target})
    assert words in str(caught.value)


def test_profiles_are_two_or_one_by_target() -> None:
    assert load_recipe(TWO).profiles == "split"
    mixed = load_recipe({**TWO, "per_target": {"trt-rtx": {"profiles": "joint"}}})
    assert [mixed.for_target(name).profiles for name in mixed.target] == ["split", "joint"]
    with pytest.raises(RecipeError, match=r"(?s)profiles.*Did you mean 'joint'\?"):
        load_recipe({**TWO, "profiles": "joined"})


def test_a_folder_in_place_of_a_recipe_is_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text("{}")
    (tmp_path / "m.gguf").write_bytes(b"GGUF\xff\xfe")
    (tmp_path / "my m.gguf").write_bytes(b"GGUF")
    for name in ("llama", "m.gguf", "my m.gguf"):
        with pytest.raises(RecipeError, match="This is a model") as caught:
            load_recipe(name)
        assert shlex.split(str(caught.value.hint))[:2] == ["--model", f"./{name}"]


def test_paths_of_python_are_paths_of_a_recipe(tmp_path: Path) -> None:
    data = {"model": tmp_path, "output": tmp_path / "o", "verify": {"text": tmp_path / "t"}}
    recipe = load_recipe(data)
    assert (recipe.model, recipe.output) == (str(tmp_path), str(tmp_path / "o"))
    assert recipe.verify.text == str(tmp_path / "t")
    assert load_recipe({"model": "m"}, {"model": tmp_path}).model == str(tmp_path)
    with pytest.raises(RecipeError, match="'model' takes text") as caught:
        load_recipe({"model": {1}})
    assert caught.value.found == "{1} (of type set)"


def test_a_recipe_that_was_read_is_a_recipe(recipe: Recipe) -> None:
    again = load_recipe(recipe)
    assert (again, again.base) == (recipe, recipe.base)
    assert load_recipe(recipe, {"quantize.group": 32}).quantize.group == 32
    per_target = {"trt": {"quantize": {"cache": "int8"}, "compute_capabilities": [8.9]}}
    other = load_recipe({"model": "m", "target": ["ort-cpu", "trt"], "per_target": per_target})
    assert load_recipe(other) == other


@pytest.mark.parametrize(("word", "enabled"), [("off", False), ("false", False), ("true", True)])
def test_one_word_says_whether_to_verify(tmp_path: Path, word: str, enabled: bool) -> None:
    (tmp_path / "r.yaml").write_text(f"model: m\nverify: {word}\n")
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.verify.enabled is enabled
    assert load_recipe(recipe).verify == recipe.verify
